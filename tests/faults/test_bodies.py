"""Bodies: other bytes, too few, too many, in another coding, and lengths that lie."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.support.fault_stand import MIB, RANGE, SIZE, Ending, Fault, Stage, World, cases
from tests.support.lies import (
    ENDLESS,
    bare,
    bounds,
    breaking,
    chunked,
    content_range,
    covering,
    cut,
    endless,
    every,
    first,
    flipped,
    flood,
    half,
    heads,
    nothing,
    once,
    ranges,
    right_head,
)
from tests.support.origin_server import Answer, Script, ranged, redirect, status

PAGE = b"<!doctype html><html><title>Sign in to the guest network</title></html>"
# What may lie between an origin that sends without end and a reader that has had enough: eight connections' buffers.
BUFFERS = 8 * MIB


def _flip(at: int) -> Callable[[World], None]:
    return lambda world: world.cdn(ranged(flipped(world.data, at)))


def _encoded(name: str, data: bytes) -> Script:
    """Compress what is sent, or say so."""

    def change(start: int, end: int) -> tuple[dict[str, object], bytes]:
        body = gzip.compress(data[start:end]) if "gzip" in name else data[start:end]
        headers = {**content_range(start, end, len(data)), "Content-Length": len(body), "Content-Encoding": name}
        return headers, body

    return ranges(data, change)


def _was_rejected_twice(_: World, ending: Ending) -> None:
    assert ending.rejected == 2
    assert ending.next_attempt_at is None


def _length(change: int) -> Callable[[World], None]:
    return lambda world: world.cdn(heads(world.data, lambda s, e: {"Content-Length": e - s + change}))


def _raw_206(data: bytes, *lines: str) -> Script:
    """Answer rightly but for the header lines given, which stand where Content-Length would."""

    def script_of(start: int, end: int) -> bytes:
        names = [f"Content-Range: bytes {start}-{end - 1}/{len(data)}", *(line.format(n=end - start) for line in lines)]
        return ("HTTP/1.1 206 Partial Content\r\n" + "\r\n".join(names) + "\r\n\r\n").encode() + data[start:end]

    return lambda answer: bare(script_of(*bounds(answer, data)))(answer)


def _raw_once(*lines: str) -> Callable[[World], None]:
    return lambda world: world.cdn(once(_raw_206(world.data, *lines), ranged(world.data)))


def _one_huge_chunk(data: bytes) -> Script:
    def script(answer: Answer) -> None:
        start, end = bounds(answer, data)
        answer.head(206, {**content_range(start, end, len(data)), "Transfer-Encoding": "chunked"})
        flood(ENDLESS, before=b"7fffffffffffffff\r\n" + data[start:end])(answer)

    return script


def _trailers(answer: Answer) -> None:
    flood(b"X-More: " + b"x" * 60_000 + b"\r\n")(answer)


@cases(
    Fault("the first byte flipped", "hash_mismatch", _flip(0), check=_was_rejected_twice, quick=True),
    Fault("a byte in the middle flipped", "hash_mismatch", _flip(SIZE // 2), check=_was_rejected_twice),
    Fault("the last byte flipped", "hash_mismatch", _flip(-1), check=_was_rejected_twice),
    Fault(
        "a byte flipped in one of many ranges, always",
        "hash_mismatch",
        lambda w: w.cdn(covering(5 * RANGE, ranged(flipped(w.data, 5 * RANGE)), ranged(w.data))),
        check=_was_rejected_twice,
    ),
    Fault(
        "a byte flipped the first time alone",
        "verified",
        lambda w: w.cdn(first(1, ranged(flipped(w.data, 0)), ranged(w.data))),
    ),
    Fault("zeros of the right size", "hash_mismatch", lambda w: w.cdn(ranged(bytes(SIZE))), check=_was_rejected_twice),
    Fault("another file of the right size", "hash_mismatch", lambda w: w.cdn(ranged(w.data[::-1]))),
    Fault(
        "HTML with 200 to everything: a portal",
        "source_unavailable",
        lambda w: w.hub(status(200, {"Content-Type": "text/html"}, PAGE)),
        copies=0.1,
        slack=0,
        quick=True,
    ),
    Fault(
        "HTML with 200 and no length",
        "source_unavailable",
        lambda w: w.cdn(ranges(PAGE, lambda _s, _e: ({"Content-Type": "text/html"}, PAGE), code=200)),
        copies=0.1,
        slack=0,
    ),
    Fault(
        "HTML with 200, once in the middle",
        "verified",
        lambda w: w.cdn(once(status(200, {"Content-Type": "text/html"}, PAGE), ranged(w.data))),
    ),
    Fault(
        "HTML with 206",
        "source_unavailable",
        lambda w: w.cdn(status(206, {"Content-Type": "text/html"}, PAGE)),
        copies=0.1,
        slack=0,
    ),
    Fault(
        "HTML with 206 and the right headers",
        "hash_mismatch",
        lambda w: w.cdn(ranged((PAGE * (SIZE // len(PAGE) + 1))[:SIZE], headers={"Content-Type": "text/html"})),
    ),
    Fault(
        "a body that never begins, under the right headers",
        "source_unavailable",
        lambda w: w.cdn(breaking(w.data, nothing, cut)),
        copies=0,
        slack=0,
        quick=True,
    ),
    Fault(
        "a body that ends half way, each time",
        "verified",
        lambda w: w.cdn(breaking(w.data, half, cut)),
        copies=1.5,
    ),
    Fault(
        "a body that ends half way, once",
        "verified",
        lambda w: w.cdn(once(breaking(w.data, half, cut), ranged(w.data))),
    ),
    Fault(
        "a body without length that ends early, every second time",
        "verified",
        lambda w: w.cdn(
            every(2, ranges(w.data, lambda s, e: (content_range(s, e, SIZE), w.data[s : (s + e) // 2])), ranged(w.data))
        ),
    ),
    Fault(
        "a 200 without length that ends early, always",
        "source_unavailable",
        lambda w: w.cdn(ranges(w.data, lambda _s, _e: ({}, w.data[: SIZE // 3]), code=200)),
        copies=3,
    ),
    Fault(
        "a 206 with more bytes than announced",
        "verified",
        lambda w: w.cdn(ranges(w.data, lambda s, e: (content_range(s, e, SIZE), w.data[s:e] + bytes(1000)))),
    ),
    Fault(
        "an endless 206",
        "verified",
        lambda w: w.cdn(endless(w.data, lambda s, e: content_range(s, e, SIZE))),
        copies=4,
        slack=BUFFERS,
    ),
    Fault(
        "an endless 200 that begins with the right bytes",
        "verified",
        lambda w: w.cdn(endless(w.data, lambda _s, _e: {}, code=200)),
        slack=BUFFERS,
        quick=True,
    ),
    Fault(
        "an endless 200 of zeros",
        "hash_mismatch",
        lambda w: w.cdn(endless(bytes(SIZE), lambda _s, _e: {}, code=200)),
        copies=2,
        slack=BUFFERS,
        check=_was_rejected_twice,
    ),
    Fault(
        "an endless 200 where nobody knows the size",
        "source_unavailable",
        lambda w: (
            w.pin.pop("size_bytes"),
            w.hub(redirect("/cdn")),
            w.cdn(endless(w.data, lambda _s, _e: {}, code=200)),
        ),
        slack=BUFFERS,
    ),
    Fault("Content-Length one too large", "source_unavailable", _length(1), copies=1),
    Fault("Content-Length one too small", "source_unavailable", _length(-1), copies=1),
    Fault(
        "Content-Length of 200 larger than the pin",
        "source_unavailable",
        lambda w: w.cdn(status(200, {"Content-Length": 10**15}, b"x")),
        copies=0.1,
        slack=0,
    ),
    Fault(
        "bytes after the announced end, each time",
        "verified",
        lambda w: w.cdn(ranges(w.data, lambda s, e: (right_head(s, e, SIZE), w.data[s:e] + b"HTTP/1.1 garbage\r\n"))),
    ),
    Fault("Content-Length that is no number, once", "verified", _raw_once("Content-Length: many")),
    Fault("Content-Length that is negative, once", "verified", _raw_once("Content-Length: -5")),
    Fault("two Content-Lengths that disagree, once", "verified", _raw_once("Content-Length: {n}", "Content-Length: 7")),
    Fault("chunked, which is legal", "verified", lambda w: w.cdn(chunked(w.data)), copies=1),
    Fault(
        "chunked without the last chunk, once",
        "verified",
        lambda w: w.cdn(once(chunked(w.data, end=b""), ranged(w.data))),
    ),
    Fault("chunked without the last chunk, always", "verified", lambda w: w.cdn(chunked(w.data, end=b""))),
    Fault(
        "chunked with a size line that is none, always",
        "source_unavailable",
        lambda w: w.cdn(chunked(w.data, size=lambda _: b"zz\r\n")),
        copies=1,
    ),
    Fault(
        "chunked with a size line that is none, once",
        "verified",
        lambda w: w.cdn(once(chunked(w.data, size=lambda _: b"zz\r\n"), ranged(w.data))),
    ),
    Fault(
        "chunked with sizes one too small, always",
        "source_unavailable",
        lambda w: w.cdn(chunked(w.data, size=lambda part: b"%x\r\n" % (len(part) - 1))),
        copies=6,
    ),
    Fault(
        "chunked with one chunk of 2^63 bytes, and no end",
        "verified",
        lambda w: w.cdn(_one_huge_chunk(w.data)),
        copies=4,
        slack=BUFFERS,
    ),
    Fault(
        "chunked with a size line of 100 kB",
        "source_unavailable",
        lambda w: w.cdn(chunked(w.data, size=lambda _: b"1;" + b"x" * 100_000 + b"\r\n")),
        copies=20,
    ),
    Fault(
        "trailers without end behind a chunked body",
        ("verified", "source_unavailable"),
        lambda w: w.cdn(chunked(w.data, end=b"0\r\n", then=_trailers)),
        copies=4,
        slack=BUFFERS,
    ),
    Fault("gzip, always", "source_unavailable", lambda w: w.cdn(_encoded("gzip", w.data)), copies=1, quick=True),
    Fault("gzip, once", "verified", lambda w: w.cdn(once(_encoded("gzip", w.data), ranged(w.data)))),
    Fault("br, always", "source_unavailable", lambda w: w.cdn(_encoded("br", w.data)), copies=1),
    Fault("an unknown Content-Encoding", "source_unavailable", lambda w: w.cdn(_encoded("x-own", w.data)), copies=1),
    Fault("identity and gzip", "source_unavailable", lambda w: w.cdn(_encoded("identity, gzip", w.data)), copies=1),
    Fault("identity, which is legal", "verified", lambda w: w.cdn(_encoded("identity", w.data)), copies=1),
    Fault(
        "gzip of the whole with 200",
        "source_unavailable",
        lambda w: w.cdn(ranges(w.data, lambda _s, _e: ({"Content-Encoding": "gzip"}, gzip.compress(w.data)), code=200)),
        copies=6,
    ),
)
def test_bodies(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
