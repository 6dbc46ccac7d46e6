"""What a miner's answers mean, and where miners are looked for."""

from __future__ import annotations

import json
import socket

import pytest

from services.downloader.miners import answers
from services.downloader.miners.answers import MinerView
from services.downloader.miners.places import Place, parse_places, resolve
from services.downloader.settings import DownloaderSettings
from shared.errors import ConfigurationError
from shared.settings import load_settings
from tests.support.scripted_miner import served


def listing(*entries: object) -> bytes:
    return json.dumps({"object": "list", "data": entries}).encode()


@pytest.mark.parametrize(
    ("status", "body", "ready", "reason"),
    [
        (200, b'{"ready": true, "reason": "serves Tiny"}', True, "serves Tiny"),
        (503, b'{"ready": false, "reason": "loading"}', False, "loading"),
        (503, b'{"ready": true}', False, "it says that it is not ready"),
        (200, b'{"ready": false}', False, "it says that it is not ready"),
        (200, b"ready\n", True, ""),  # a gateway
        (503, b"no miner is ready\n", False, "it answers with status 503"),
        (302, b"", False, "it answers with status 302"),
        (200, b'{"ready": "perhaps"}', True, ""),
        (503, b"[" * 100_000, False, "it answers with status 503"),
    ],
)
def test_readiness_is_what_status_and_body_agree_on(status: int, body: bytes, ready: bool, reason: str) -> None:
    assert answers.readiness(status, body) == (ready, reason)


def test_models_come_with_what_is_known_of_them() -> None:
    (model,) = answers.models(200, listing({**served(), "extra": 1}))
    assert isinstance(model, answers.ServedModel)
    assert model.model_dump(mode="json", exclude_none=True) | {"r3mes": None} == {**served(), "r3mes": None}
    assert model.r3mes is not None
    assert (model.r3mes.engine, model.r3mes.hardware.threads) == ("llama.cpp", 4)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, b"{}", "it refuses our API key"),
        (500, b"{}", "its list of models has status 500"),
        (200, b"", "its list of models makes no sense"),
        (200, b"{" * 50_000, "its list of models makes no sense"),
        (200, listing({"id": 5}), "its list of models makes no sense"),
        (200, listing({"id": "x" * 1001}), "its list of models makes no sense"),
        (200, listing(served(context_tokens=-1)), "its list of models makes no sense"),
        (200, listing(served(context_tokens=10**30)), "its list of models makes no sense"),
        (200, listing(*[{"id": "x"}] * 65), "its list of models makes no sense"),
        (200, listing(served(hardware={"why": ["x"] * 65})), "its list of models makes no sense"),
        (200, b'{"data": [{"id": "\\ud800"}]}', "its list of models makes no sense"),
    ],
)
def test_what_has_not_the_known_shape_is_not_shown(status: int, body: bytes, why: str) -> None:
    assert answers.models(status, body) == why


def test_text_that_steers_a_terminal_or_the_writing_direction_is_defused() -> None:
    (model,) = answers.models(200, listing({"id": "a\x1b[2Jb\u202ec\u200bd\né"}))
    assert isinstance(model, answers.ServedModel)
    assert model.id == "a\ufffd[2Jb\ufffdc\ufffdd\ufffdé"


@pytest.mark.parametrize(
    ("exposition", "value"),
    [
        (b"# HELP\nr3mes_x 3.0\nother 1\n", 3),
        (b"r3mes_x 12\n", 12),
        (b'r3mes_x{a="b"} 3\n', None),
        (b"r3mes_x_total 3\n", None),
        (b"r3mes_x NaN\n", None),
        (b"r3mes_x -1\n", None),
        (b"r3mes_x 1e9\n", None),
        (b"", None),
    ],
)
def test_a_gauge_is_a_small_number_or_nothing(exposition: bytes, value: int | None) -> None:
    assert answers.gauge(exposition, "r3mes_x") == value


def test_a_view_is_json_with_every_field() -> None:
    view = MinerView("http://a", ready=False, reason="r").to_json()
    assert view == {"url": "http://a", "ready": False, "reason": "r", "models": [], "running": None, "waiting": None}


def test_several_urls_are_several_places() -> None:
    assert parse_places(" http://miner:8080, https://[::1]/ ,") == (
        Place("http", "miner", 8080),
        Place("https", "::1", 443),
    )


@pytest.mark.parametrize(
    "url",
    ["miner:8080", "ftp://m", "http://", "http://m:x", "http://m/v1", "http://u:p@m", "http://m?x", "http://m:99999"],
)
def test_a_url_that_is_none_is_named_at_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="R3MES_MINER_URL"):
        load_settings(DownloaderSettings, {"R3MES_MINER_URL": url})


def test_no_url_is_no_place() -> None:
    assert load_settings(DownloaderSettings, {"R3MES_MINER_URL": ""}).miner_places == ()


def _dns(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    def lookup(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        if not ips:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        families = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in ips]
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in zip(families, ips, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_a_name_is_all_of_its_addresses_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _dns(monkeypatch, "10.0.0.10", "10.0.0.9", "10.0.0.10", "fd00::1")
    urls = [address.url for address in resolve(Place("http", "miner", 8080))]
    assert urls == ["http://10.0.0.9:8080", "http://10.0.0.10:8080"]


def test_without_ipv4_it_is_the_others_and_never_a_link_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _dns(monkeypatch, "fd00::1", "169.254.169.254", "fe80::1")
    assert [address.url for address in resolve(Place("http", "miner", 80))] == ["http://[fd00::1]:80"]


def test_a_name_that_nobody_has_is_no_miner(monkeypatch: pytest.MonkeyPatch) -> None:
    _dns(monkeypatch)
    assert resolve(Place("http", "miner", 80)) == []
    monkeypatch.undo()
    assert resolve(Place("http", "a" * 64, 80)) == []
