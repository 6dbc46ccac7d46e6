"""A proxy on the way out sees which https host is asked, and can neither answer in its place nor read along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.downloader.transfer.outcomes import Completed, SourceFailed
from tests.support.certificates import certificate
from tests.support.origin_server import ScriptedOrigin, linked, ranged
from tests.support.transfer_bench import DATA, Bench
from tests.support.tunnel import tunnel

HERE = "IP:127.0.0.1"
SECRET = "hf_secret"


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedOrigin]:
    """The host that is asked, whose certificate is trusted."""
    context, trusted = certificate(tmp_path / "origin", HERE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with ScriptedOrigin(tls=context) as origin:
        origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
        yield origin


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[ScriptedOrigin]:
    """A host that has the right bytes to offer, and a certificate of the right name that nobody vouches for."""
    context, _ = certificate(tmp_path / "impostor", HERE)
    with ScriptedOrigin(tls=context) as impostor:
        impostor.scripts["/file"] = ranged(DATA, headers=linked(DATA))
        yield impostor


def behind(proxy: str, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    return {"HF_ENDPOINT": origin.url, "HTTPS_PROXY": proxy}


def test_a_proxy_that_leads_to_the_host_learns_its_name_and_nothing_else(
    tmp_path: Path, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tunnel() as (proxy, asked):
        bench = Bench(tmp_path, origin)
        assert bench.run(environ=behind(proxy, origin, monkeypatch), token=SECRET) == Completed(len(DATA))
    assert asked
    assert {line.rpartition(" ")[0] for line in asked} == {f"CONNECT {origin.host}"}
    assert {seen.headers.get("authorization") for seen in origin.requests} == {f"Bearer {SECRET}"}


def test_a_proxy_that_leads_to_another_host_is_told_nothing_and_gets_nothing_kept(
    tmp_path: Path, origin: ScriptedOrigin, impostor: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tunnel(to=impostor.port) as (proxy, asked):
        bench = Bench(tmp_path, origin)
        outcome = bench.run(environ=behind(proxy, origin, monkeypatch), token=SECRET)
    assert isinstance(outcome, SourceFailed)
    assert "certificate" in outcome.message
    assert asked
    assert impostor.connections > 0
    assert impostor.requests == origin.requests == []
    assert list(bench.layout.incoming.rglob("data")) == []
