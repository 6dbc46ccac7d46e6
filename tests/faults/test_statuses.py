"""Statuses: what is tried again, what asks to wait, what is final, and addresses that expire behind a redirect."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate

from tests.support.fault_stand import SIZE, Ending, Fault, Stage, World, cases
from tests.support.lies import by_method, every, first, flood, once
from tests.support.origin_server import Answer, Script, linked, ranged, redirect, status

GONE = 1_000_000_000
PAGE = b"<html>no</html>"


def _always(code: int, **headers: object) -> Callable[[World], None]:
    return lambda world: world.cdn(_said(code, **headers))


def _once(code: int, **headers: object) -> Callable[[World], None]:
    return lambda world: world.cdn(once(_said(code, **headers), ranged(world.data)))


def _burst(code: int, **headers: object) -> Callable[[World], None]:
    """Answer the first three requests for bytes so."""
    return lambda world: world.cdn(first(3, _said(code, **headers), ranged(world.data)))


def _said(code: int, **headers: object) -> Script:
    return status(code, {name.replace("_", "-"): value for name, value in headers.items()})


def _hub(code: int) -> Callable[[World], None]:
    """Refuse at the first address."""
    return lambda world: world.hub(status(code, {}, PAGE))


def _few_requests(world: World, _: Ending) -> None:
    """A permanent refusal is not repeated: one HEAD, and at most a GET for each connection."""
    assert world.asked() <= 10


def _expires(code: int) -> Callable[[World], None]:
    """Give an address behind the redirect that works for three requests, and a new one when asked again."""

    def arrange(world: World) -> None:
        given: list[int] = []

        def hub(answer: Answer) -> None:
            if answer.seen.method == "GET":
                given.append(len(given))
                path = f"/signed{given[-1]}"
                world.origin.scripts[path] = first(3, ranged(world.data), status(code, {}, PAGE))
            redirect(f"/signed{given[-1] if given else 0}", linked(world.data))(answer)

        world.hub(hub)

    return arrange


def _was_resolved_again(world: World, _: Ending) -> None:
    assert len(world.origin.asked(world.path)) >= 3


def _endless_500(answer: Answer) -> None:
    flood(bytes(64 * 1024), before=b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\n\r\n")(answer)


def _retry_after(value: object) -> dict[str, object]:
    return {"Retry_After": value}


def _head_waits(world: World) -> None:
    """429 to the very first request, which asks for one second."""
    world.hub(status(429, {"Retry-After": 1}), redirect("/cdn", linked(world.data)))


def _it_waited(world: World, _: Ending) -> None:
    refused, next_one = world.origin.asked(world.path, "HEAD")[:2]
    assert next_one.at - refused.at >= 1.0


def _slow_date() -> Callable[[World], None]:
    return lambda world: world.cdn(_said(503, Retry_After=formatdate(time.time() + 3600, usegmt=True)))


def failed(name: str, arrange: Callable[[World], object], says: str = "", *, quick: bool = False) -> Fault:
    """The source fails and not one byte of the file was taken."""
    return Fault(name, "source_unavailable", arrange, says, copies=0, slack=10_000, quick=quick)


def final(code: int, says: str = "", *, quick: bool = False) -> Fault:
    """A refusal at the first address that trying again does not change."""
    name = f"{code} at the first address"
    return Fault(
        name,
        "source_unavailable",
        _hub(code),
        says or str(code),
        copies=0,
        slack=1000,
        check=_few_requests,
        quick=quick,
    )


TRANSIENT = (500, 502, 504)


@cases(
    final(403, "HF_TOKEN", quick=True),
    final(401, "HF_TOKEN"),
    final(400),
    final(404, quick=True),
    final(410),
    final(418),
    final(451),
    *(
        Fault(f"an address that expires with {code}", "verified", _expires(code), check=_was_resolved_again)
        for code in (401, 403, 404, 410)
    ),
    failed("403 behind the redirect, always", _always(403), "403"),
    failed("401 behind the redirect, always", _always(401), "401"),
    *(Fault(f"a burst of {code}", "verified", _burst(code), copies=1, quick=code == 502) for code in TRANSIENT),
    *(failed(f"{code}, always", _always(code), str(code)) for code in TRANSIENT),
    Fault("502 to every second request", "verified", lambda w: w.cdn(every(2, status(502), ranged(w.data))), copies=1),
    Fault("500 with an endless page", "source_unavailable", lambda w: w.cdn(_endless_500), copies=0, slack=8 * SIZE),
    Fault("408, once", "verified", _once(408), copies=1),
    Fault("425, once", "verified", _once(425), copies=1),
    failed("999, always", _always(999), "999"),
    failed("600, always", _always(600), "600"),
    failed("101, always", _always(101)),
    failed("204, always", _always(204), "204"),
    Fault("204, once", "verified", _once(204), copies=1),
    failed("205, always", _always(205), "205"),
    failed("304, always", _always(304), "304"),
    Fault("304, once", "verified", _once(304), copies=1),
    failed("300 with a choice, always", _always(300, Location="/elsewhere"), "300"),
    Fault(
        "416 with another size",
        "upstream_mismatch",
        _always(416, Content_Range=f"bytes */{SIZE - 1}"),
        "bytes",
        copies=0,
    ),
    Fault("416 with another size midway", "upstream_mismatch", _once(416, Content_Range="bytes */5"), copies=1),
    failed("416 without a size, always", _always(416), "416"),
    Fault("416 without a size, once", "verified", _once(416), copies=1),
    Fault(
        "416 with the pinned size, once",
        "verified",
        _once(416, Content_Range=f"bytes */{SIZE}"),
        copies=1,
    ),
    Fault("429 with a short Retry-After", "verified", _head_waits, copies=1, check=_it_waited),
    Fault("429 without Retry-After, once", "verified", _once(429), copies=1),
    Fault(
        "429 with a Retry-After that is a date of the past",
        "verified",
        _burst(429, **_retry_after(formatdate(GONE, usegmt=True))),
        copies=1,
    ),
    Fault("429 with a Retry-After that is garbage", "verified", _burst(429, **_retry_after("soon, I hope")), copies=1),
    Fault("429 with a negative Retry-After", "verified", _burst(429, **_retry_after(-5)), copies=1),
    Fault("429 with a Retry-After of 40 digits", "verified", _once(429, **_retry_after("9" * 40)), copies=1),
    Fault(
        "429 with a Retry-After in a year that is none",
        "verified",
        _burst(429, **_retry_after("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")),
        copies=1,
    ),
    failed("429 with a Retry-After beyond patience", _always(429, **_retry_after(3600)), "3600", quick=True),
    failed("503 with a Retry-After that is a date beyond patience", _slow_date(), "it asks to wait"),
    Fault("503 with a short Retry-After", "verified", _once(503, **_retry_after(1)), copies=1),
    failed("503 with a short Retry-After, always", _always(503, **_retry_after(1)), "503"),
    failed("429 to every HEAD", lambda w: w.hub(by_method(status(429), redirect("/cdn", linked(w.data)))), "429"),
)
def test_statuses(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
