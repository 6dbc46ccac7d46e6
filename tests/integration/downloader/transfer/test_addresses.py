"""Redirects, names and proxies: which connections are made, and what they are told."""

from __future__ import annotations

import socket

import pytest

from services.downloader.transfer.outcomes import Completed, SourceFailed
from tests.support.origin_server import Answer, ScriptedOrigin, in_turn, linked, ranged, redirect, status
from tests.support.transfer_bench import DATA, FAST, Bench


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "https://127.0.0.1/x",
        "http://localhost:9/x",
        "http://huggingface.co/x",
        "ftp://x/y",
        "https://user:secret@huggingface.co/x",
        "https://[/",
        "https://huggingface.co:99999/x",
        "https://",
    ],
)
def test_a_redirect_to_an_address_that_is_not_allowed_is_refused_by_its_text(bench: Bench, target: str) -> None:
    bench.origin.scripts["/file"] = redirect(target)
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert bench.attempts("permanent") == 1


def _resolve(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """Let a name resolve to `addresses`: a resolver is the one thing that a test cannot have for itself."""
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **kwargs: object) -> list[object]:
        if host != name:
            return list(real(host, port, **kwargs))  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr("services.downloader.sources.connection.socket.getaddrinfo", resolve)


def test_a_name_that_leads_to_a_private_address_is_refused_without_a_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name looks public and the DNS answer is loopback, where somebody listens and counts."""
    with ScriptedOrigin() as victim:
        victim.scripts["/x"] = ranged(DATA)
        _resolve(monkeypatch, "cdn.example.com", "127.0.0.1")
        bench.origin.scripts["/file"] = redirect(f"https://cdn.example.com:{victim.port}/x", linked(DATA))
        outcome = bench.run()
        assert isinstance(outcome, SourceFailed)
        assert "127.0.0.1" in outcome.message
        assert victim.connections == 0


def test_one_bad_address_among_good_ones_is_enough_to_refuse(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve(monkeypatch, "cdn.example.com", "127.0.0.1", "93.184.216.34")
    bench.origin.scripts["/file"] = redirect("https://cdn.example.com/x")
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "not a public address" in outcome.message


def test_a_loop_of_redirects_ends(bench: Bench) -> None:
    bench.origin.scripts["/file"] = in_turn(status(200, linked(DATA)), redirect("/file"))
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "redirects" in outcome.message
    assert len(bench.origin.asked("/file")) <= FAST.redirects + 1


def test_the_body_of_a_redirect_is_not_read(bench: Bench) -> None:
    """An endless one would otherwise fill the memory."""

    def script(answer: Answer) -> None:
        answer.head(302, {"Location": "/cdn", **linked(DATA)})
        for _ in range(100):
            answer.body(bytes(1024 * 1024))

    bench.origin.scripts["/file"] = script
    bench.origin.scripts["/cdn"] = ranged(DATA)
    assert bench.run() == Completed(len(DATA))
    assert bench.origin.sent("/file") < 32 * 1024 * 1024


def test_the_token_goes_to_the_endpoint_alone(bench: Bench) -> None:
    with ScriptedOrigin() as cdn:
        cdn.scripts["/x"] = ranged(DATA)
        bench.origin.scripts["/file"] = redirect(f"{cdn.url}/x", linked(DATA))
        environ = {
            "HF_ENDPOINT": bench.origin.url,
            "R3MES_ALLOW_HTTP_SOURCES": f"{bench.origin.host},{cdn.host}",
        }
        assert bench.run(environ=environ, token="hf_secret") == Completed(len(DATA))
        assert {seen.headers.get("authorization") for seen in bench.origin.requests} == {"Bearer hf_secret"}
        assert {seen.headers.get("authorization") for seen in cdn.requests} == {None}


def test_a_proxy_of_the_environment_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain proxy is asked for the whole URL; here it answers by itself."""
    with ScriptedOrigin() as proxy:
        proxy.scripts["/file"] = ranged(DATA)
        monkeypatch.setenv("http_proxy", proxy.url)
        environ = {"HTTP_PROXY": proxy.url}
        assert bench.run(environ=environ) == Completed(len(DATA))
        assert bench.origin.requests == []
        assert proxy.connections > 0
