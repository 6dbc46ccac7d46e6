"""https: certificates that are wrong, servers that speak something else, and the way down to http."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.certificates import certificate
from tests.support.fault_stand import KIB, Ending, Fault, Stage, World, cases
from tests.support.lies import bounds, breaking, content_range, half, once
from tests.support.origin_server import Answer, Script, linked, ranged, redirect

HERE = "IP:127.0.0.1"


@cache
def _made(home: Path, name: str, days: int, number: int) -> tuple[ssl.SSLContext, Path]:
    """Make each certificate once; those of another `number` are strangers to each other."""
    return certificate(home / f"tls-{name.replace(':', '-')}-{days}-{number}", name, days=days)


def _https(
    arrange: Callable[[World], object] = lambda _: None, *, name: str = HERE, days: int = 2, trusted: int = 0
) -> Callable[[World], None]:
    """Serve over https with a certificate of `name`, of which the client trusts it, or a stranger's (`trusted`)."""

    def arranged(world: World) -> None:
        world.origin = world.another_origin(tls=_made(world.home, name, days, 0)[0])
        world.endpoint = world.origin.url
        world.environ["REQUESTS_CA_BUNDLE"] = str(_made(world.home, name, days, trusted)[1])
        world.hub(redirect("/cdn", linked(world.data)))
        world.cdn(ranged(world.data))
        arrange(world)

    return arranged


def _nothing_was_asked(world: World, _: Ending) -> None:
    assert world.asked() == 0


def _downgrade(world: World) -> None:
    world.hub(redirect(f"{world.victim().url}/x", linked(world.data)))


def _downgrade_at_home(world: World) -> None:
    """Lead to the same host and port, without the s."""
    world.hub(redirect(f"http://{world.origin.host}/cdn", linked(world.data)))


def _nobody_came(world: World, _: Ending) -> None:
    assert [victim.connections for victim in world.victims] == [0]


def _plain(world: World) -> None:
    world.endpoint = f"https://{world.origin.host}"


def _silent(world: World) -> None:
    listener = world.places.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = listener.getsockname()[1]
    world.endpoint = f"https://127.0.0.1:{port}"
    world.others.add(f"127.0.0.1 {port}")


def _hang_up(answer: Answer) -> None:
    """End the connection below TLS, which so never says that the stream has ended."""
    answer.cut()
    answer.handler.connection.shutdown(socket.SHUT_RDWR)


def _truncated(data: bytes) -> Script:
    """Give no length, and hang up half way."""

    def script(answer: Answer) -> None:
        start, end = bounds(answer, data)
        answer.head(206, content_range(start, end, len(data)))
        answer.body(data[start : (start + end) // 2])
        _hang_up(answer)

    return script


def untrusted(name: str, arrange: Callable[[World], None], says: str = "") -> Fault:
    """A server that nobody may believe: it does not even learn what is asked for."""
    return Fault(name, "source_unavailable", arrange, says, copies=0, slack=0, check=_nothing_was_asked)


@cases(
    Fault("https, which is right", "verified", _https(), copies=1),
    untrusted("a certificate of another host", _https(name="DNS:another.example"), "certificate"),
    untrusted("a certificate that nobody vouches for", _https(trusted=1), "certificate"),
    untrusted("a certificate that has expired", _https(days=-1), "certificate"),
    Fault("plain http on the port of https", "source_unavailable", _plain, copies=0, slack=10 * KIB),
    untrusted("a handshake that is never answered", _silent),
    Fault(
        "a redirect from https to http",
        "source_unavailable",
        _https(_downgrade),
        "http",
        copies=0,
        slack=0,
        check=_nobody_came,
    ),
    Fault(
        "a redirect from https to http on the same port",
        "source_unavailable",
        _https(_downgrade_at_home),
        "http",
        copies=0,
        slack=0,
    ),
    Fault(
        "TLS that ends without a goodbye, once",
        "verified",
        _https(lambda w: w.cdn(once(breaking(w.data, half, _hang_up), ranged(w.data)))),
    ),
    Fault(
        "TLS that ends without a goodbye and gave no length, once",
        "verified",
        _https(lambda w: w.cdn(once(_truncated(w.data), ranged(w.data)))),
    ),
)
def test_tls(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
