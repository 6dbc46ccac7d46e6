"""Asking miners over real sockets: several addresses, and answers that are late, endless, large, or lead elsewhere."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from services.downloader.miners.asking import MAX_ANSWER_BYTES
from services.downloader.miners.places import Place, parse_places
from services.downloader.miners.poll import MinerPoll
from tests.support.downloader_process import Downloader, model
from tests.support.downloader_stand import DATA
from tests.support.scripted_miner import ScriptedMiner, served
from tests.support.waiting import wait_until

SECONDS = 0.5


@pytest.fixture
def miner() -> Iterator[ScriptedMiner]:
    with ScriptedMiner() as miner:
        yield miner


def look(url: str, key: str | None = None) -> list[dict[str, Any]]:
    places = parse_places(url)
    assert isinstance(places, tuple)
    return MinerPoll(places, lambda: key, SECONDS).look()


def test_a_miner_is_asked_for_everything_that_is_shown(miner: ScriptedMiner) -> None:
    miner.script.running, miner.script.waiting = 3, 1
    (view,) = look(miner.url)
    assert view.pop("models")[0]["r3mes"]["hardware"] == served()["r3mes"]["hardware"]
    assert view == {"url": miner.url, "ready": True, "reason": "serves Tiny", "running": 3, "waiting": 1}


def test_every_address_of_a_name_is_a_miner_and_each_place_is_asked(
    miner: ScriptedMiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(host: str, port: int, type: int) -> list[Any]:  # noqa: A002 - the library's name
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "miner" else [host]
        return [entry for each in hosts for entry in real(each, port, type=type)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with ScriptedMiner("127.0.0.2", miner.port) as second, ScriptedMiner() as third:
        second.script.ready, second.script.reason = False, "loading"
        views = look(f"http://miner:{miner.port},{third.url},{third.url}")
    assert [view["url"] for view in views] == [miner.url, second.url, third.url]
    assert [view["ready"] for view in views] == [True, False, True]
    assert views[1]["reason"] == "loading"


def test_an_address_where_nothing_listens_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    (view,) = look(url)
    assert (view["ready"], view["reason"]) == (False, "nothing listens there (connection refused)")
    assert (view["models"], view["running"], view["waiting"]) == ([], None, None)


def test_the_models_are_asked_for_with_the_key(miner: ScriptedMiner) -> None:
    miner.script.keys = ("schlüssel",)
    assert look(miner.url)[0]["reason"] == "it refuses our API key"
    miner.script.keys = ("right",)
    assert look(miner.url, "right")[0]["models"]
    assert look(miner.url, "line\nbreak")[0]["reason"] == "its answer is no HTTP"


def _raw(data: bytes, *, forever: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send bytes as they are, then end the connection; `forever`: one by one, without an end."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(data)
            while forever:
                handler.wfile.write(b"x")
                time.sleep(SECONDS / 10)
        except OSError:
            return

    return send


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_raw(b"HTTP/1.1 200 OK\r\nX-", forever=True), "it does not answer in time"),
        (_raw(HEAD + b"\r\n", forever=True), "it does not answer in time"),
        (_raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, forever=True), "it does not answer in time"),
        (_raw(HEAD + b"\r\n" + b" " * (MAX_ANSWER_BYTES + 1)), f"its answer is larger than {MAX_ANSWER_BYTES} bytes"),
        (_raw(HEAD + b"X: y\r\n" * 101 + b"\r\n"), "its answer is no HTTP"),
        (_raw(b"hello"), "its answer is no HTTP"),
        (_raw(HEAD + b"Content-Length: 10\r\n\r\n{}"), "its answer ended early"),
        (_raw(b""), "it broke the connection off"),
    ],
)
def test_an_answer_that_is_none_costs_little_time_and_says_what_it_was(
    miner: ScriptedMiner, answer: Callable[[BaseHTTPRequestHandler], None], reason: str
) -> None:
    miner.script.other["/readyz"] = answer
    begun = time.monotonic()
    (view,) = look(miner.url)
    assert (view["ready"], view["reason"]) == (False, reason)
    assert time.monotonic() - begun < 6 * SECONDS


def test_a_redirect_is_an_answer_and_leads_nowhere(miner: ScriptedMiner) -> None:
    with ScriptedMiner() as victim:
        moved = b"HTTP/1.1 302 Found\r\nLocation: " + victim.url.encode() + b"/v1/models\r\nContent-Length: 0\r\n\r\n"
        victim.script.other["/v1/models"] = lambda _: pytest.fail("the redirect was followed")
        miner.script.other |= {"/readyz": _raw(moved), "/v1/models": _raw(moved)}
        assert look(miner.url)[0]["ready"] is False


def test_a_proxy_is_not_used(miner: ScriptedMiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert look(miner.url)[0]["ready"] is True


def test_a_slow_miner_holds_up_no_other(miner: ScriptedMiner) -> None:
    with ScriptedMiner("127.0.0.2") as slow:
        slow.script.other["/readyz"] = _raw(b"", forever=True)
        places = (Place("http", "127.0.0.2", slow.port), Place("http", "127.0.0.1", miner.port))
        assert [view["ready"] for view in MinerPoll(places, lambda: None, SECONDS).look()] == [False, True]


def test_the_status_tells_of_miners_as_they_come_and_go(tmp_path: Path, miner: ScriptedMiner) -> None:
    miner.script.keys = ("first",)
    environ = {"R3MES_MINER_URL": miner.url, "R3MES_API_KEYS": "first,second", "HF_ENDPOINT": "http://127.0.0.1:1"}
    with Downloader(tmp_path / "home", model(DATA), environ=environ) as service:

        def view() -> dict[str, Any]:
            found = service.get("/api/v1/status")["miners"]
            return dict(found[0]) if found else {"ready": False}  # nobody has looked yet

        wait_until(lambda: view()["ready"] and view()["models"][0]["id"] == "Tiny", what="the ready miner")
        miner.script.ready, miner.script.reason = False, "draining"
        wait_until(lambda: view()["reason"] == "draining", what="the miner's reason")
        code, took = service.terminate()
        assert (code, took < 10) == (0, True), service.log
