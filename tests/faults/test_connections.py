"""Connections that break, stall, trickle, or speak no HTTP."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.support.fault_stand import KIB, MIB, Fault, Stage, World, cases
from tests.support.lies import (
    bare,
    bounds,
    breaking,
    content_range,
    every,
    first,
    flood,
    half,
    http_10,
    nothing,
    numbered,
    once,
    reset,
    stall,
    trickle,
)
from tests.support.origin_server import Answer, Script, linked, ranged, redirect
from tests.support.ports import free_port


def _cdn(script: Callable[[bytes], Script]) -> Callable[[World], None]:
    return lambda world: world.cdn(script(world.data))


def _once(lie: Callable[[bytes], Script]) -> Callable[[World], None]:
    return lambda world: world.cdn(once(lie(world.data), ranged(world.data)))


def _first(count: int, lie: Callable[[bytes], Script]) -> Callable[[World], None]:
    return lambda world: world.cdn(first(count, lie(world.data), ranged(world.data)))


def _stalled(data: bytes) -> Script:
    return breaking(data, half, stall)


def _on_the_first_connection(world: World) -> None:
    """Stall on one connection, whatever is asked on it; the others are right."""
    stalled: list[int] = []
    slow, right = _stalled(world.data), ranged(world.data)

    def script(answer: Answer) -> None:
        if not stalled:
            stalled.append(answer.connection)
        (slow if answer.connection in stalled else right)(answer)

    world.cdn(script)


def _one_slow_connection(world: World) -> None:
    """A trickle on one connection beside right ones: the file must not wait for it."""
    slow: list[int] = []
    trickling, right = trickle(world.data, 0.2), ranged(world.data)

    def script(answer: Answer) -> None:
        if not slow:
            slow.append(answer.connection)
        (trickling if answer.connection in slow else right)(answer)

    world.cdn(script)


def _accepts(accepts: Callable[[int], bool]) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.origin.accepts = accepts

    return arrange


def _nobody_listens(world: World) -> None:
    port = free_port()
    world.endpoint = f"http://127.0.0.1:{port}"
    world.others.add(f"127.0.0.1 {port}")


def _listens_and_never_answers(world: World) -> None:
    """The kernel accepts, and nobody ever reads."""
    listener = world.places.enter_context(socket.create_server(("127.0.0.1", 0)))
    world.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    world.others.add(f"127.0.0.1 {listener.getsockname()[1]}")


def _refused_then_back(world: World) -> None:
    """The address behind the redirect refuses three times."""
    port = free_port()
    world.others.add(f"127.0.0.1 {port}")
    world.environ["R3MES_ALLOW_HTTP_SOURCES"] = f"127.0.0.1:{port}"
    facts = linked(world.data)
    dead, alive = redirect(f"http://127.0.0.1:{port}/x", facts), redirect("/cdn", facts)
    world.hub(numbered(lambda number: number <= 3, dead, alive))


def _right_head(data: bytes, version: str = "HTTP/1.1 206 Partial Content", more: bytes = b"") -> Script:
    """Answer rightly, but for the status line and some header lines more."""

    def script(answer: Answer) -> None:
        start, end = bounds(answer, data)
        value = content_range(start, end, len(data))["Content-Range"]
        lines = f"{version}\r\nContent-Range: {value}\r\nContent-Length: {end - start}\r\n".encode()
        bare(lines + more + b"\r\n" + data[start:end])(answer)

    return script


def _slow_head(data: bytes) -> Script:
    del data
    return flood(b"x", 0.1, before=b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")


MANY_HEADERS = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
LONG_HEADER = b"X-Long: " + b"y" * 100_000 + b"\r\n"
HEADERS = 10 * MIB


@cases(
    Fault(
        "reset before the first byte, always",
        "source_unavailable",
        _cdn(lambda d: breaking(d, nothing, reset)),
        copies=0,
        quick=True,
    ),
    Fault("reset half way, once", "verified", _once(lambda d: breaking(d, half, reset)), quick=True),
    # What a reset overtakes is lost: whether enough of each half arrives is the kernels' to say.
    Fault(
        "reset half way, at each request",
        ("verified", "source_unavailable"),
        _cdn(lambda d: breaking(d, half, reset)),
        copies=3,
    ),
    Fault(
        "reset half way, at every third request",
        "verified",
        lambda w: w.cdn(every(3, breaking(w.data, half, reset), ranged(w.data))),
    ),
    Fault(
        "reset before any head, at every second request", "verified", lambda w: w.cdn(every(2, reset, ranged(w.data)))
    ),
    Fault("reset before any head, always", "source_unavailable", lambda w: w.cdn(reset), copies=0),
    Fault("reset before any head, four times", "verified", lambda w: w.cdn(first(4, reset, ranged(w.data)))),
    Fault("nobody listens", "source_unavailable", _nobody_listens, copies=0, slack=0),
    Fault("refused three times, then back", "verified", _refused_then_back),
    Fault("accepted and never answered", "source_unavailable", _listens_and_never_answers, copies=0, slack=0),
    Fault("accepted and closed at once, always", "source_unavailable", _accepts(lambda _: False), copies=0, slack=0),
    Fault("accepted and closed at once, three times", "verified", _accepts(lambda number: number > 3)),
    Fault("three connections of many closed at once", "verified", _accepts(lambda number: number not in {2, 4, 7})),
    Fault("a stall half way, once", "verified", _once(_stalled), quick=True),
    Fault("a stall on one connection alone", "verified", _on_the_first_connection),
    Fault("a stall before the first byte, once", "verified", _once(lambda d: breaking(d, nothing, stall))),
    Fault(
        "a stall before the first byte, always",
        "source_unavailable",
        _cdn(lambda d: breaking(d, nothing, stall)),
        copies=0,
        slack=0,
    ),
    Fault("a stall instead of an answer, once", "verified", _once(lambda _: stall)),
    Fault("a stall instead of an answer, always", "source_unavailable", _cdn(lambda _: stall), copies=0, slack=0),
    Fault("a stall within the head, once", "verified", _once(lambda _: bare(b"HTTP/1.1 206 Part", then=stall))),
    Fault(
        "a stall within the head, always",
        "source_unavailable",
        _cdn(lambda _: bare(b"HTTP/1.1 206 Part", then=stall)),
        copies=0,
        slack=10 * KIB,
    ),
    Fault("a head that trickles, a byte each 0.1 s", "source_unavailable", _cdn(_slow_head), copies=0, slack=10 * KIB),
    Fault("a head that trickles, once", ("verified", "source_unavailable"), _once(_slow_head)),
    Fault(
        "a byte each 0.2 s, always",
        "source_unavailable",
        _cdn(lambda d: trickle(d, 0.2)),
        copies=0.1,
        slack=0,
        seconds=10,
    ),
    Fault(
        "a kilobyte each 0.7 s, always",
        "source_unavailable",
        _cdn(lambda d: trickle(d, 0.7, KIB)),
        copies=0.1,
        slack=0,
        seconds=10,
    ),
    Fault("a byte each 0.2 s on one connection alone", "verified", _one_slow_connection, seconds=10),
    Fault(
        "10,000 header lines, always",
        "source_unavailable",
        _cdn(lambda d: _right_head(d, more=MANY_HEADERS)),
        copies=6,
        slack=HEADERS,
    ),
    Fault("10,000 header lines, once", "verified", _once(lambda d: _right_head(d, more=MANY_HEADERS))),
    Fault(
        "a header line of 100 kB, always",
        "source_unavailable",
        _cdn(lambda d: _right_head(d, more=LONG_HEADER)),
        copies=6,
        slack=HEADERS,
    ),
    Fault("a header line of 100 kB, once", "verified", _once(lambda d: _right_head(d, more=LONG_HEADER))),
    Fault(
        "a header line without end",
        "source_unavailable",
        _cdn(lambda _: flood(b"x" * 1000, before=b"HTTP/1.1 206 OK\r\nX: ")),
        copies=0,
        slack=HEADERS,
    ),
    Fault(
        "header lines without end",
        "source_unavailable",
        _cdn(lambda _: flood(b"X-More: x\r\n", before=b"HTTP/1.1 206 OK\r\n")),
        copies=0,
        slack=HEADERS,
    ),
    Fault(
        "a header line without a colon, once", "verified", _once(lambda d: _right_head(d, more=b"no colon here\r\n"))
    ),
    Fault(
        "`100 Continue` before the answer, which is legal",
        "verified",
        _cdn(lambda d: _right_head(d, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 OK")),
        copies=1,
    ),
    Fault(
        "`100 Continue` without end",
        "source_unavailable",
        _cdn(lambda _: flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)),
        copies=0,
        slack=HEADERS,
    ),
    Fault(
        "garbage instead of HTTP, always",
        "source_unavailable",
        _cdn(lambda _: bare(bytes(range(256)) * 10)),
        copies=0.1,
        slack=0,
        quick=True,
    ),
    Fault("garbage instead of HTTP, once", "verified", _once(lambda _: bare(bytes(range(256)) * 10))),
    Fault("garbage without end", "source_unavailable", _cdn(lambda _: flood(b"\x80" * 1000)), copies=0, slack=HEADERS),
    Fault("an HTTP/0.9 body", "source_unavailable", _cdn(bare), copies=2),
    Fault("HTTP/1.0, which is legal", "verified", _cdn(http_10), copies=1),
    Fault(
        "HTTP/3.0 in the status line", "source_unavailable", _cdn(lambda d: _right_head(d, "HTTP/3.0 206 OK")), copies=1
    ),
    Fault("ICY in the status line", "source_unavailable", _cdn(lambda d: _right_head(d, "ICY 206 OK")), copies=1),
    Fault(
        "a status line without a reason, which is legal",
        "verified",
        _cdn(lambda d: _right_head(d, "HTTP/1.1 206")),
        copies=1,
    ),
    Fault(
        "a status that is no number", "source_unavailable", _cdn(lambda d: _right_head(d, "HTTP/1.1 two OK")), copies=1
    ),
)
def test_connections(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
