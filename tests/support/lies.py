"""The ways in which an origin of `origin_server` is wrong: each returns a script that answers one request.

A lie looks at the range that was asked for, never at the order of requests: several connections ask at once. `once`,
`every` and `covering` say which requests meet it, and HEAD never does unless it is the first request of all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from tests.support.origin_server import Answer, Script

Headers = Mapping[str, object]
ENDLESS = bytes(64 * 1024)


def bounds(answer: Answer, data: bytes) -> tuple[int, int]:
    """Return the half-open range that is asked for, within the file."""
    start, end = answer.seen.range or (0, len(data))
    return start, min(end, len(data))


def content_range(start: int, end: int, total: object) -> dict[str, object]:
    return {"Content-Range": f"bytes {start}-{end - 1}/{total}"}


def right_head(start: int, end: int, total: object) -> dict[str, object]:
    """Return the headers of a right partial answer."""
    return {**content_range(start, end, total), "Content-Length": end - start}


def ranges(data: bytes, change: Callable[[int, int], tuple[Headers, bytes]], code: int = 206) -> Script:
    """Answer `[start, end)` with the headers and the body that `change(start, end)` makes of it."""

    def script(answer: Answer) -> None:
        headers, body = change(*bounds(answer, data))
        answer.head(code, headers)
        answer.body(body)

    return script


def heads(data: bytes, change: Callable[[int, int], Headers], code: int = 206) -> Script:
    """Serve the right bytes of each range under other headers; None among them leaves one out."""

    def changed(start: int, end: int) -> tuple[Headers, bytes]:
        headers = {**right_head(start, end, len(data)), **change(start, end)}
        return {name: value for name, value in headers.items() if value is not None}, data[start:end]

    return ranges(data, changed, code)


def flipped(data: bytes, at: int) -> bytes:
    """Return `data` with one bit of the byte at `at` turned over."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# --- which requests -------------------------------------------------------------------------------------------------


def first(count: int, lie: Script, right: Script) -> Script:
    """Let the first `count` GET requests meet the lie."""
    return numbered(lambda number: number <= count, lie, right)


def once(lie: Script, right: Script) -> Script:
    """Let one GET request, the third, meet the lie: in the middle of a file that comes in several ranges."""
    return numbered(lambda number: number == 3, lie, right)


def every(count: int, lie: Script, right: Script) -> Script:
    """Let every GET request whose number `count` divides meet the lie."""
    return numbered(lambda number: number % count == 0, lie, right)


def numbered(is_met: Callable[[int], bool], lie: Script, right: Script) -> Script:
    """Let the GET requests meet the lie whose number, from 1, `is_met` says."""
    lock, numbers = threading.Lock(), [0]

    def script(answer: Answer) -> None:
        with lock:
            numbers[0] += answer.seen.method == "GET"
            met = answer.seen.method == "GET" and is_met(numbers[0])
        (lie if met else right)(answer)

    return script


def covering(offset: int, lie: Script, right: Script) -> Script:
    """Let the requests meet the lie whose range has the byte at `offset`."""

    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, offset + 1)
        (lie if start <= offset < end else right)(answer)

    return script


def by_method(head: Script, get: Script) -> Script:
    """Answer HEAD by one script and GET by another."""

    def script(answer: Answer) -> None:
        (head if answer.seen.method == "HEAD" else get)(answer)

    return script


# --- connections ----------------------------------------------------------------------------------------------------


def breaking(data: bytes, part: Callable[[int], int], end: Callable[[Answer], None]) -> Script:
    """Announce the range, send the first `part(length)` bytes of it, then `end` the answer in another way."""

    def script(answer: Answer) -> None:
        start, stop = bounds(answer, data)
        answer.head(206, right_head(start, stop, len(data)))
        answer.body(data[start : start + part(stop - start)])
        end(answer)

    return script


def half(length: int) -> int:
    return (length + 1) // 2


def nothing(_: int) -> int:
    return 0


def trickle(data: bytes, seconds: float, count: int = 1) -> Script:
    """Send `count` bytes of the range each so many seconds."""

    def script(answer: Answer) -> None:
        start, stop = bounds(answer, data)
        answer.head(206, right_head(start, stop, len(data)))
        for offset in range(start, stop, count):
            answer.body(data[offset : min(offset + count, stop)])
            if answer.closing.wait(seconds):
                return

    return script


def bare(*parts: bytes, then: Callable[[Answer], None] | None = None) -> Script:
    """Send bytes in place of an answer, then close, or do what `then` says."""

    def script(answer: Answer) -> None:
        for part in parts:
            answer.raw(part)
        if then is not None:
            then(answer)

    return script


def flood(part: bytes, seconds: float = 0.0, before: bytes = b"") -> Script:
    """Send `part` again and again until the client has enough, each after so many seconds."""

    def script(answer: Answer) -> None:
        answer.raw(before)
        while not answer.closing.wait(seconds):
            answer.raw(part)

    return script


def stall(answer: Answer) -> None:
    answer.stall()


def reset(answer: Answer) -> None:
    answer.reset()


def cut(answer: Answer) -> None:
    answer.cut()


# --- bodies ---------------------------------------------------------------------------------------------------------


def endless(data: bytes, headers: Callable[[int, int], Headers], code: int = 206) -> Script:
    """Send the range that is asked for, and then never stop."""

    def script(answer: Answer) -> None:
        start, stop = bounds(answer, data) if code == 206 else (0, len(data))
        answer.head(code, headers(start, stop))
        answer.body(data[start:stop])
        while answer.seen.method == "GET" and not answer.closing.is_set():
            answer.body(ENDLESS)

    return script


def chunked(
    data: bytes,
    *,
    size: Callable[[bytes], bytes] = lambda part: b"%x\r\n" % len(part),
    after: bytes = b"\r\n",
    end: bytes = b"0\r\n\r\n",
    then: Callable[[Answer], None] = cut,
) -> Script:
    """Send each range in chunks of 10,000 bytes: their size line, what follows them, and the end, as given."""

    def script(answer: Answer) -> None:
        start, stop = bounds(answer, data)
        answer.head(206, {**content_range(start, stop, len(data)), "Transfer-Encoding": "chunked"})
        for offset in range(start, stop, 10_000):
            part = data[offset : min(offset + 10_000, stop)]
            answer.body(size(part) + part + after)
        answer.body(end)
        then(answer)

    return script


def http_10(data: bytes) -> Script:
    """Answer as an old server does: HTTP/1.0, the body ends with the connection."""

    def script(answer: Answer) -> None:
        start, stop = bounds(answer, data)
        answer.raw(
            f"HTTP/1.0 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{len(data)}\r\n\r\n".encode()
        )
        answer.raw(data[start:stop])

    return script
