"""IPFS gateways: asked only after Hugging Face failed; and bytes that are wrong wherever they come from."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.downloader_process import sha256
from tests.support.fault_stand import KIB, SIZE, Ending, Fault, Stage, World, cases
from tests.support.lies import breaking, cut, first, flipped, flood, half, nothing, once, reset, stall, trickle
from tests.support.origin_server import Script, linked, ranged, redirect, status, whole
from tests.support.ports import free_port

PAGE = b"<html>IPFS gateway: no such block</html>"
TOKEN = "hf_secret_of_the_tests"


def _gateways(*scripts: Callable[[bytes], Script]) -> Callable[[World], None]:
    """Hugging Face has no such file; the gateways answer so."""

    def arrange(world: World) -> None:
        world.hub(status(404))
        for script in scripts:
            world.gateway(script(world.data))

    return arrange


def _html(_: bytes) -> Script:
    return status(200, {"Content-Type": "text/html"}, PAGE)


def _wrong(data: bytes) -> Script:
    return ranged(flipped(data, SIZE // 2))


def _with_dead(*scripts: Callable[[bytes], Script]) -> Callable[[World], None]:
    """The first gateway's port is closed."""

    def arrange(world: World) -> None:
        port = free_port()
        world.others.add(f"127.0.0.1 {port}")
        world.add_gateway(f"http://127.0.0.1:{port}")
        _gateways(*scripts)(world)

    return arrange


def _led_on(world: World, *, allowed: bool) -> None:
    """Lead from a path gateway to a subdomain gateway, which is another origin."""
    subdomain = world.another_origin() if allowed else world.victim()
    subdomain.scripts["/x"] = ranged(world.data)
    if allowed:
        world.allow(subdomain)
    _gateways(lambda _: redirect(f"{subdomain.url}/x", code=301))(world)


def _came_from_ipfs(_: World, ending: Ending) -> None:
    assert ending.source == "ipfs"


def _no_gateway_was_asked(world: World, ending: Ending) -> None:
    assert ending.source == "huggingface"
    assert world.origins[1].connections == 0


def _hub_and_gateway(hub: Callable[[bytes], Script], gateway: Callable[[bytes], Script]) -> Callable[[World], None]:
    """Both sources have something to say: what lies behind the first address, and the gateway."""

    def arrange(world: World) -> None:
        world.cdn(hub(world.data))
        world.gateway(gateway(world.data))

    return arrange


def _upstream_moved(world: World) -> None:
    world.hub(redirect("/cdn", linked(world.data, **{"X-Linked-Etag": f'"{sha256(b"other")}"'})))
    world.gateway(ranged(world.data))


def _with_token(world: World) -> None:
    world.environ["HF_TOKEN"] = TOKEN
    _gateways(ranged)(world)


def _token_was_not_told(world: World, _: Ending) -> None:
    assert world.origins[1].requests
    assert [seen for seen in world.origins[1].requests if TOKEN in str(seen.headers)] == []


def _silent_until_a_retry(world: World, ending: Ending) -> None:
    """No more bandwidth is burnt, across a restart, until an operator says so; then the right bytes count."""
    assert ending.next_attempt_at is None
    assert ending.rejected == 3
    asked = world.asked()
    world.service.restart()
    world.service.wait_for_the_end(20)
    world.service.ask("resume")
    assert world.service.wait_for_the_end(20)["reason"] == "hash_mismatch"
    assert world.asked() == asked
    world.cdn(ranged(world.data))
    world.service.ask("retry")
    world.service.wait_for(lambda status: bool(status["state"] == "verified"), 30, "verified after a retry")


def _four_rejected(_: World, ending: Ending) -> None:
    assert ending.next_attempt_at is None
    assert ending.rejected == 4


def _two_rejected(_: World, ending: Ending) -> None:
    assert ending.rejected == 2


def _breaks_for_good(data: bytes) -> Script:
    """Serve the first three requests, then reset every one."""
    return first(3, ranged(data), reset)


def _zeros(data: bytes) -> Script:
    return ranged(bytes(len(data)))


def from_ipfs(name: str, arrange: Callable[[World], object], copies: float = 2.0, *, quick: bool = False) -> Fault:
    return Fault(name, "verified", arrange, copies=copies, check=_came_from_ipfs, quick=quick)


def nothing_came(name: str, *scripts: Callable[[bytes], Script], copies: float = 0) -> Fault:
    return Fault(name, "source_unavailable", _gateways(*scripts), copies=copies, slack=100 * KIB)


@cases(
    Fault(
        "a gateway while Hugging Face works",
        "verified",
        _hub_and_gateway(ranged, ranged),
        copies=1,
        check=_no_gateway_was_asked,
        quick=True,
    ),
    from_ipfs("a gateway after 404", _gateways(ranged), 1, quick=True),
    from_ipfs("a gateway after 500", _hub_and_gateway(lambda _: status(500), ranged), 1),
    from_ipfs("a gateway after upstream moved", _upstream_moved, 1),
    from_ipfs("a gateway that ignores Range", _gateways(whole), 1),
    from_ipfs(
        "a gateway that goes on where Hugging Face breaks for good", _hub_and_gateway(_breaks_for_good, ranged), 2
    ),
    nothing_came("a gateway with HTML", _html),
    nothing_came("a gateway with 504", lambda _: status(504)),
    nothing_came("a gateway with 404", lambda _: status(404)),
    nothing_came("a gateway with 410 for blocked content", lambda _: status(410)),
    nothing_came("a gateway that ends every body before it begins", lambda data: breaking(data, nothing, cut)),
    nothing_came("a gateway that resets", lambda _: reset),
    nothing_came("a gateway that stalls", lambda _: stall),
    nothing_came("a gateway with gzip", lambda data: ranged(data, headers={"Content-Encoding": "gzip"}), copies=1),
    nothing_came("a gateway with an endless head", lambda _: flood(b"x" * 100, 0.05, before=b"HTTP/1.1 200 OK\r\nX: ")),
    Fault(
        "a slow gateway, a byte each 0.2 s",
        "source_unavailable",
        _gateways(lambda data: trickle(data, 0.2)),
        copies=0.1,
        seconds=10,
    ),
    from_ipfs("a gateway that ends every body half way", _gateways(lambda data: breaking(data, half, cut))),
    from_ipfs("a gateway that truncates once", _gateways(lambda data: once(breaking(data, half, cut), ranged(data)))),
    Fault(
        "a gateway with wrong bytes", ("source_unavailable", "hash_mismatch"), _gateways(_wrong), check=_two_rejected
    ),
    from_ipfs("two gateways: one is dead", _with_dead(ranged)),
    from_ipfs("two gateways: one gives HTML", _gateways(_html, ranged)),
    from_ipfs("two gateways: one gives 504", _gateways(lambda _: status(504), ranged)),
    from_ipfs("two gateways: one gives 404", _gateways(lambda _: status(404), ranged)),
    from_ipfs("two gateways: one stalls", _gateways(lambda _: stall, ranged)),
    from_ipfs("two gateways: one truncates", _gateways(lambda data: breaking(data, half, cut), ranged)),
    from_ipfs("two gateways: the second gives 404", _gateways(ranged, lambda _: status(404))),
    Fault(
        "two gateways: the first lies",
        "verified",
        _gateways(_wrong, ranged),
        copies=3,
        check=_came_from_ipfs,
    ),
    Fault("two gateways: both are dead", "source_unavailable", _with_dead(lambda _: reset), copies=0, slack=KIB),
    from_ipfs("three gateways: dead, HTML, right", _with_dead(_html, ranged)),
    from_ipfs("a gateway that leads on to an allowed one", lambda w: _led_on(w, allowed=True), 1),
    Fault(
        "a gateway that leads on to one that is not allowed",
        "source_unavailable",
        lambda w: _led_on(w, allowed=False),
        "refused",
        copies=0,
        slack=KIB,
    ),
    Fault("a gateway is not told the token", "verified", _with_token, copies=1, check=_token_was_not_told),
    from_ipfs("wrong bytes from Hugging Face, right ones from a gateway", _hub_and_gateway(_wrong, ranged), 3),
    Fault(
        "both sources with the same wrong digest",
        "hash_mismatch",
        _hub_and_gateway(_wrong, _wrong),
        copies=3,
        check=_silent_until_a_retry,
    ),
    Fault(
        "both sources with different wrong digests",
        "hash_mismatch",
        _hub_and_gateway(_wrong, _zeros),
        copies=4,
        check=_four_rejected,
    ),
)
def test_ipfs(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
