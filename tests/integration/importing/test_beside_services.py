"""Imports into a store on which a real downloader and a real verifier are at work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.store.records import Lease
from tests.support.downloader_process import REPOSITORY, Downloader
from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader
from tests.support.importing import incoming_names, is_verified, run_import, state_of
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged, redirect
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        origin.scripts[PATH] = redirect("/cdn", linked(DATA))
        yield origin


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine"
    file.write_bytes(DATA)
    return file


def test_a_download_under_way_is_left_to_its_owner_until_that_one_pauses(
    tmp_path: Path, origin: ScriptedOrigin, file: Path
) -> None:
    hold = Hold(after=len(DATA) // 2, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(tmp_path / "home", origin) as service:
        service.wait_received(DIGEST, 1)
        owner = Lease.read(service.layout.lease(DIGEST))
        assert owner is not None

        refused = run_import(service, file)

        assert refused.returncode == 6, refused.stderr
        assert "r3mes pause Tiny" in refused.stderr
        lease = Lease.read(service.layout.lease(DIGEST))
        assert lease is not None
        assert lease.instance == owner.instance
        assert service.status(DIGEST)["state"] == "downloading"

        service.ask(DIGEST, "pause").raise_for_status()
        wait_until(lambda: not service.layout.lease(DIGEST).exists(), 30, "the lease to be given back")
        done = run_import(service, file)

        assert done.returncode == 0, done.stderr
        assert is_verified(service)
        assert service.wait_for(DIGEST, "verified")["source"] == "import"
        hold.release()


@pytest.fixture
def services(tmp_path: Path, origin: ScriptedOrigin, clean_redis: str) -> Iterator[Downloader]:
    """A downloader that finds nothing upstream, and the verifier of its store."""
    origin.scripts.clear()
    service = downloader(tmp_path / "home", origin, R3MES_REDIS_URL=clean_redis, R3MES_RECONCILE_SECONDS="0.2")
    with service, (tmp_path / "verifier.log").open("wb") as log:
        verifier = subprocess.Popen(
            [sys.executable, "-m", "services.verifier"],
            cwd=service.home,
            env={**service.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=log,
        )
        try:
            wait_until(lambda: b"verifier started" in (tmp_path / "verifier.log").read_bytes(), 30, "the verifier")
            yield service
        finally:
            verifier.kill()
            verifier.wait()


def test_two_verifiers_that_want_the_same_file_end_with_one_that_is_right(services: Downloader, file: Path) -> None:
    before = state_of(file)
    assert services.wait_for(DIGEST, "failed")["reason"] == "source_unavailable"

    done = run_import(services, file)

    assert done.returncode == 0, done.stderr
    assert is_verified(services)
    assert services.wait_for(DIGEST, "verified")["source"] == "import"
    link = services.layout.root / "tiny.gguf"
    wait_until(link.is_symlink, 30, "the link")
    wait_until(
        lambda: not {"data", "journal.json"} & set(incoming_names(services.layout, DIGEST)), 30, "a tidy incoming"
    )
    assert list(services.layout.rejected.iterdir()) == []
    assert is_verified(services)
    assert state_of(file) == before
