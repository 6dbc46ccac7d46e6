"""Room for one copy only: a real downloader and a real verifier bring a file through that would not fit twice."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.downloader.transfer.incoming import read_journal
from tests.support.downloader_process import MIB, REPOSITORY, Downloader, model, sha256
from tests.support.downloader_stand import PATH, downloader
from tests.support.origin_server import ScriptedOrigin, linked, ranged, redirect
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until

# More than the downloader may lie ahead of the verifier's copy, so that it has to wait for it.
SIZE = 460 * MIB
MARGIN = 256 * MIB
SPARE = 48 * MIB

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def origin(data: bytes) -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        origin.scripts[PATH] = redirect("/cdn", linked(data))
        origin.scripts["/cdn"] = ranged(data)
        yield origin


StartVerifier = Callable[[Downloader], subprocess.Popen[bytes]]


@pytest.fixture
def start_verifier(tmp_path: Path) -> Iterator[StartVerifier]:
    started: list[subprocess.Popen[bytes]] = []

    def start(service: Downloader) -> subprocess.Popen[bytes]:
        environ = {**service.environ, "R3MES_LISTEN": "127.0.0.1:0"}
        with (tmp_path / "verifier.log").open("ab") as log:
            command = [sys.executable, "-m", "services.verifier"]
            started.append(subprocess.Popen(command, env=environ, cwd=REPOSITORY, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _is_verified(service: Downloader, digest: str) -> bool:
    path = service.layout.verified_file(digest, "tiny.gguf")
    if not path.exists():
        return False
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    return True


@pytest.mark.parametrize("kills", [0, 3])
def test_a_file_that_fits_once_is_downloaded_and_verified(
    tmp_path: Path, origin: ScriptedOrigin, data: bytes, clean_redis: str, start_verifier: StartVerifier, kills: int
) -> None:
    """Both are killed at once, in the middle, as often as `kills` says: no byte is lost, and it ends verified."""
    digest = sha256(data)
    with small_disk(tmp_path / "disk", SIZE + MARGIN + SPARE) as disk:
        service = downloader(disk / "home", origin, model(data), R3MES_REDIS_URL=clean_redis)
        with service:
            verifier = start_verifier(service)
            for number in range(kills):
                mark = (number + 1) * SIZE // (kills + 2)
                service.wait_received(digest, mark, 120)
                journal = read_journal(service.layout, digest)
                assert journal is not None
                assert journal.mode == "low-space"
                service.kill()
                verifier.kill()
                verifier.wait()
                service.start()
                verifier = start_verifier(service)
            wait_until(lambda: _is_verified(service, digest), 180, "the verified file")
            service.wait_for(digest, "verified", 60)
        assert not any(service.layout.partial.iterdir())
        assert sum(path.stat().st_blocks for path in service.layout.incoming.rglob("*") if path.is_file()) < 1000
    assert origin.sent() <= SIZE + (kills + 1) * 64 * MIB
