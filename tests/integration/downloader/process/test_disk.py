"""A disk that is full, or becomes full midway, and has room again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.downloader.transfer.incoming import read_journal
from tests.support.downloader_process import MIB, model
from tests.support.downloader_stand import DATA, DIGEST, downloader, incoming_is_right
from tests.support.origin_server import Hold, ScriptedOrigin, ranged
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until


def test_a_full_disk_tells_how_much_is_missing_and_asks_nobody(home: Path, origin: ScriptedOrigin) -> None:
    pinned = model(DATA, required_disk_space_gb=900_000.0)
    with downloader(home, origin, pinned) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        missing = int(failed["message"].split("(")[1].split()[0])
        free = service.get("/api/v1/status")["disk"]["free_bytes"]
        assert missing == pytest.approx(900_000 * 10**9 - free, rel=1e-4)
        assert failed["next_attempt_at"] is not None
        assert origin.requests == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Room for the margin, and for not one copy of the small file."""
    with small_disk(tmp_path / "small", 257 * MIB) as path:
        yield path


def test_a_full_disk_recovers_when_there_is_room(disk: Path, origin: ScriptedOrigin) -> None:
    with downloader(disk / "home", origin) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        assert origin.sent() == 0
        subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", disk], check=True)
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)


def test_room_for_one_copy_begins_in_low_space_mode_with_a_sparse_file(disk: Path, origin: ScriptedOrigin) -> None:
    subprocess.run(["mount", "-o", f"remount,size={258 * MIB + len(DATA)}", disk], check=True)
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(disk / "home", origin) as service:
        service.wait_received(DIGEST, MIB)
        journal = read_journal(service.layout, DIGEST)
        assert journal is not None
        assert journal.mode == "low-space"
        assert service.layout.data(DIGEST).stat().st_blocks * 512 < len(DATA)
        hold.release()
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)


def test_a_disk_that_fills_up_midway_loses_nothing(disk: Path, origin: ScriptedOrigin) -> None:
    """Another process takes all room while the transfer runs; its data is preallocated, documents are not."""
    subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", disk], check=True)
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(disk / "home", origin) as service:
        service.wait_received(DIGEST, 2 * MIB)
        ballast = disk / "ballast"
        fill(ballast)
        service.ask(DIGEST, "pause")
        wait_until(lambda: service.status(DIGEST)["state"] == "paused", what="a pause that cannot be written")
        hold.release()
        service.ask(DIGEST, "resume")
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        ballast.unlink()
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)
