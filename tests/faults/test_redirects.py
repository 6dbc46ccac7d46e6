"""Redirects and names: how far one is followed, where nobody is led, and what another host is not told."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.fault_stand import MIB, Ending, Fault, Stage, World, cases
from tests.support.lies import by_method, flood
from tests.support.origin_server import Answer, Script, linked, ranged, redirect, status

TOKEN = "hf_secret_of_the_tests"
PUBLIC = "93.184.216.34"


def _to(target: str) -> Callable[[World], None]:
    return lambda world: world.hub(redirect(target, linked(world.data)))


def _chain(count: int) -> Callable[[World], None]:
    """Lead on `count` times before the bytes come."""

    def arrange(world: World) -> None:
        world.hub(redirect("/hop1", linked(world.data)))
        for number in range(1, count):
            world.origin.scripts[f"/hop{number}"] = redirect(f"/hop{number + 1}")
        world.origin.scripts[f"/hop{count}"] = ranged(world.data)

    return arrange


def _loop(world: World) -> None:
    world.hub(by_method(status(200, linked(world.data)), redirect(world.path)))


def _loop_of_two(world: World) -> None:
    world.hub(redirect("/a", linked(world.data)))
    world.origin.scripts["/a"] = redirect("/b")
    world.origin.scripts["/b"] = redirect("/a")


def _few_requests(most: int) -> Callable[[World, Ending], None]:
    def check(world: World, _: Ending) -> None:
        assert world.asked() <= most

    return check


# --- where nobody may be led ----------------------------------------------------------------------------------------


def _to_victim(address: str) -> Callable[[World], None]:
    """Lead to the victim, whose port stands for {port}."""

    def arrange(world: World) -> None:
        world.hub(redirect(address.format(port=world.victim().port), linked(world.data)))

    return arrange


def _names(*turns: list[str], address: str = "https://cdn.example.com:{port}/x") -> Callable[[World], None]:
    """Lead to a public-looking name, whose look-ups give `turns`, and where the victim listens on loopback."""

    def arrange(world: World) -> None:
        world.names = {"cdn.example.com": [list(turn) for turn in turns]}
        _to_victim(address)(world)
        if [PUBLIC] in turns:
            world.others.add(f"{PUBLIC} {world.victims[0].port}")

    return arrange


def _nobody_came(world: World, _: Ending) -> None:
    assert [victim.connections for victim in world.victims] == [0]


def refused(name: str, arrange: Callable[[World], object], says: str = "", *, quick: bool = False) -> Fault:
    """A redirect that is not followed: not a byte, no connection, and the reason in words."""
    return Fault(name, "source_unavailable", arrange, says, copies=0, slack=0, check=_few_requests(12), quick=quick)


def unseen(name: str, arrange: Callable[[World], object], says: str = "", *, quick: bool = False) -> Fault:
    """A redirect to the victim, who must not even see a connection."""
    return Fault(name, "source_unavailable", arrange, says, copies=0, slack=0, check=_nobody_came, quick=quick)


# --- what another host is not told ----------------------------------------------------------------------------------


def _with_token(world: World, *, back: bool = False) -> None:
    other = world.another_origin()
    world.allow(other)
    world.environ["HF_TOKEN"] = TOKEN
    world.hub(redirect(f"{other.url}/x", linked(world.data)))
    other.scripts["/x"] = redirect(f"{world.origin.url}/cdn") if back else ranged(world.data)


def _token_stayed_at_home(world: World, _: Ending) -> None:
    own, other = world.origins
    assert {seen.headers.get("authorization") for seen in own.asked(world.path)} == {f"Bearer {TOKEN}"}
    assert other.requests
    assert [seen for seen in other.requests if TOKEN in str(seen.headers)] == []
    assert TOKEN not in world.service.log


def _cookies(world: World) -> None:
    cookie = {"Set-Cookie": "who=you; Path=/; Max-Age=9999"}
    world.hub(redirect("/cdn", {**linked(world.data), **cookie}))
    world.cdn(ranged(world.data, headers=cookie))


def _no_cookie_came_back(world: World, _: Ending) -> None:
    assert len(world.origin.requests) > 2
    assert [seen for seen in world.origin.requests if "cookie" in seen.headers] == []


def _endless_redirect(world: World) -> None:
    facts = "".join(f"{name}: {value}\r\n" for name, value in linked(world.data).items())
    head = f"HTTP/1.1 302 Found\r\nLocation: /cdn\r\n{facts}\r\n".encode()
    world.hub(by_method(redirect("/cdn", linked(world.data)), flood(bytes(64 * 1024), before=head)))


def _redirected_by(code: int) -> Callable[[World], None]:
    return lambda world: world.hub(redirect("/cdn", linked(world.data), code=code))


def _without_location(code: int) -> Callable[[World], None]:
    return lambda world: world.hub(by_method(status(200, linked(world.data)), status(code)))


def _dead_then_alive(world: World) -> None:
    gone = world.another_origin()
    world.allow(gone)
    gone.accepts = lambda _: False
    dead = redirect(f"{gone.url}/x", linked(world.data))
    world.hub(dead, dead, dead, redirect("/cdn", linked(world.data)))


def _raw_location(value: bytes) -> Script:
    def script(answer: Answer) -> None:
        answer.raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + value + b"\r\n\r\n")

    return script


@cases(
    Fault("a redirect to itself", "source_unavailable", _loop, "redirects", copies=0, slack=0, check=_few_requests(10)),
    Fault("two redirects in a circle", "source_unavailable", _loop_of_two, "redirects", copies=0, slack=0, quick=True),
    Fault("six redirects", "source_unavailable", _chain(6), "redirects", copies=0, slack=0, check=_few_requests(10)),
    Fault("five redirects, which is legal", "verified", _chain(5), copies=1),
    Fault("302 without Location", "source_unavailable", _without_location(302), copies=0, slack=0),
    Fault(
        "302 with an empty Location",
        "source_unavailable",
        lambda w: w.hub(by_method(status(200, linked(w.data)), redirect(""))),
        copies=0,
        slack=0,
        check=_few_requests(40),
    ),
    Fault("303, which is legal", "verified", _redirected_by(303), copies=1),
    Fault("307, which is legal", "verified", _redirected_by(307), copies=1),
    Fault("308, which is legal", "verified", _redirected_by(308), copies=1),
    Fault("an endless body behind a redirect", "verified", _endless_redirect, copies=1, slack=8 * MIB),
    Fault("a redirect to an address that does not answer, thrice, then to one that does", "verified", _dead_then_alive),
    refused(
        "a redirect to the cloud's metadata",
        _to("http://169.254.169.254/latest/meta-data"),
        "169.254.169.254",
        quick=True,
    ),
    refused("a redirect to the cloud's metadata over https", _to("https://169.254.169.254/latest"), "169.254.169.254"),
    refused("a redirect to the cloud's metadata, IPv6", _to("https://[fd00:ec2::254]/latest")),
    refused("a redirect to a link-local address, IPv6", _to("https://[fe80::1]/x")),
    refused("a redirect to 10.0.0.1", _to("https://10.0.0.1/x"), "10.0.0.1"),
    refused("a redirect to a public host over http", _to("http://huggingface.co/x"), "plain http"),
    refused("a redirect to a file", _to("file:///etc/passwd"), "file:"),
    refused("a redirect to data in the address", _to("data:application/octet-stream;base64,AAAA"), "data:"),
    refused("a redirect to ftp", _to("ftp://huggingface.co/x"), "ftp:"),
    refused("a redirect with user info", _to("https://me:secret@huggingface.co/x")),
    refused("a redirect to no host", _to("https:///x")),
    refused("a redirect to a bracket", _to("https://[/")),
    refused("a redirect to port 0", _to("https://huggingface.co:0/x")),
    refused("a redirect to port 99999", _to("https://huggingface.co:99999/x")),
    Fault(
        "a redirect to bytes that are no text",
        "source_unavailable",
        lambda w: w.hub(_raw_location(b"http://\xff\xfe\x80/\x01")),
        copies=0,
        slack=10_000,
    ),
    Fault("a redirect with an address of 60 kB", "source_unavailable", _to("/" + "a" * 60_000), copies=0, slack=0),
    Fault("a redirect with an address of 200 kB", "source_unavailable", _to("/" + "a" * 200_000), copies=0, slack=0),
    unseen("a redirect to a port of loopback that is not allowed", _to_victim("http://127.0.0.1:{port}/x"), quick=True),
    unseen("a redirect to loopback over https", _to_victim("https://127.0.0.1:{port}/x")),
    unseen("a redirect to loopback by name", _to_victim("https://localhost:{port}/x")),
    unseen("a redirect to loopback, IPv6", _to_victim("https://[::1]:{port}/x")),
    unseen("a redirect to loopback, IPv4 in IPv6", _to_victim("https://[::ffff:127.0.0.1]:{port}/x")),
    unseen("a redirect to loopback as one number", _to_victim("https://2130706433:{port}/x")),
    unseen("a redirect to loopback in short", _to_victim("https://127.1:{port}/x")),
    unseen("a redirect to loopback in hex", _to_victim("https://0x7f000001:{port}/x")),
    unseen("a redirect to 0.0.0.0", _to_victim("https://0.0.0.0:{port}/x")),
    unseen("a name that resolves to loopback", _names(["127.0.0.1"]), "127.0.0.1"),
    unseen("a name that resolves to a private address", _names(["192.168.0.1"]), "192.168.0.1"),
    unseen("a name that resolves to the cloud's metadata", _names(["169.254.169.254"]), "169.254.169.254"),
    unseen("a name that resolves to a public and to a private address", _names([PUBLIC, "127.0.0.1"])),
    unseen("rebinding: public when first looked up, then loopback", _names([PUBLIC], ["127.0.0.1"])),
    unseen(
        "rebinding: public and loopback in turn", _names([PUBLIC], ["127.0.0.1"], [PUBLIC], ["127.0.0.1"], [PUBLIC])
    ),
    Fault(
        "a redirect to another host with the token",
        "verified",
        _with_token,
        copies=1,
        check=_token_stayed_at_home,
        quick=True,
    ),
    Fault(
        "a redirect to another host and back, with the token",
        "verified",
        lambda w: _with_token(w, back=True),
        copies=1,
        check=_token_stayed_at_home,
    ),
    Fault("Set-Cookie with every answer", "verified", _cookies, copies=1, check=_no_cookie_came_back),
)
def test_redirects(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
