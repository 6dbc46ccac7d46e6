"""Power cuts after every write of the promote path, over several sizes; and what they break without its fsyncs.

Every image is judged as it came up (I1, I2), then by a start's sweep and the next turn, which end the model.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.verifier.housekeeping import recheck, sweep_orphans
from services.verifier.rejected import read_rejected
from services.verifier.run_once import Outcome, verify_once
from shared.store.verified import has_right_receipt
from tests.support.power_cut import (
    PowerCuts,
    leave_out_fsync,
    record_power_cuts,
    refuse_tmpfile,
    room_for_disks,
    write_through_cache,
)
from tests.support.slow_download import Download
from tests.support.verifier_stand import flip, make_verifier
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

NAME = "tiny.gguf"
WRITE_BACK_SECONDS = 10.0
SIZES = [1, 4095, 4096, 65_537, 1024 * 1024 + 511, 3_000_001, 5 * 1024 * 1024]
FEWEST_IMAGES = 40  # of one size: the seven of them are more than 200
I1, I2 = "wrong bytes under a right name", "right bytes nowhere"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    with room_for_disks(tmp_path / "room") as room:
        yield room


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - content, not a secret


def verification(room: Path, content: bytes, digest: str, *, disks: int = 1, seconds: float = 0.0) -> PowerCuts:
    """Record a verification of `content` for `digest`, and then so many seconds of write-back."""

    def downloaded(root: Path) -> Download:
        download = Download(Store.make(root, entry(digest)), content, digest)
        download.complete()
        return download

    def verify(download: Download) -> None:
        verify_once(download.store.layout, digest)
        download.renew()  # as the downloader does every few seconds, and that is durable
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds + 1, "the end of the write-back")

    return record_power_cuts(room, downloaded, verify, disks=disks)


def violations(store: Store, digest: str) -> set[str]:
    wrong, held = store.wrong_verified_files() != [], store.holds(digest)
    return ({I1} if wrong else set()) | (set() if held else {I2})


def sweep_as_a_start_does(store: Store) -> None:
    verifier = make_verifier(store)
    sweep_orphans(verifier)
    recheck(verifier)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def broken_by_cuts(cuts: PowerCuts, content: bytes, *, fewest: int = FEWEST_IMAGES) -> set[str]:
    """Return what any of the cuts broke; where it broke nothing, the next turn has to end the model verified."""
    digest = sha256_of(content)

    def check(store: Store) -> set[str]:
        broken = violations(store, digest)
        if not broken:
            sweep_as_a_start_does(store)
            assert verify_once(store.layout, digest) in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
            assert violations(store, digest) == set()
            assert has_right_receipt(store.layout, digest, NAME) is not None
            assert names(store.layout.verified_dir(digest)) == ["receipt.json", NAME]
            assert [name for name in names(store.layout.incoming_dir(digest)) if "lease" not in name] == []
            assert names(store.layout.partial) == names(store.layout.rejected) == []
        return broken

    found = cuts.judge(check)
    assert len(found) >= fewest, "the writes were not seen"
    return set().union(*found)


@pytest.mark.slow
def test_a_power_cut_after_any_write_leaves_a_right_file_right(room: Path) -> None:
    content = content_of(65_537)
    assert broken_by_cuts(verification(room, content, sha256_of(content)), content) == set()


@pytest.mark.faults
@pytest.mark.parametrize("size", SIZES)
def test_a_power_cut_after_any_write_leaves_a_file_of_any_size_right(room: Path, size: int) -> None:
    content = content_of(size)
    assert broken_by_cuts(verification(room, content, sha256_of(content)), content) == set()


@pytest.mark.faults
def test_a_power_cut_after_any_write_leaves_a_right_file_right_where_a_copy_has_to_have_a_name(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(1024 * 1024 + 511)
    with monkeypatch.context() as recording:
        refuse_tmpfile(recording)
        cuts = verification(room, content, sha256_of(content))
    assert broken_by_cuts(cuts, content) == set()


@pytest.mark.faults
@pytest.mark.parametrize("disks", [1, 2])
def test_a_power_cut_after_any_write_leaves_wrong_bytes_or_the_record_of_them(room: Path, disks: int) -> None:
    wrong = content_of(65_537)
    digest = sha256_of(flip(wrong, 30_000))
    cuts = verification(room, wrong, digest, disks=disks)

    def check(store: Store) -> tuple[bool, bool]:
        recorded = len(read_rejected(store.layout, digest)) == 1
        kept = [path for path in store.layout.incoming_dir(digest).glob("[.d]*") if path.name != "lease.json"]
        kept = [path for path in kept if path.read_bytes() == wrong]
        assert store.verified_names(digest) == []
        assert recorded or kept, "neither the bytes nor why they were deleted"
        sweep_as_a_start_does(store)
        assert verify_once(store.layout, digest) in {Outcome.REJECTED, Outcome.NOTHING}
        assert store.verified_names(digest) == []
        assert len(read_rejected(store.layout, digest)) == 1
        # Without its journal the data is void, and the downloader's to begin anew.
        left = {name for name in names(store.layout.incoming_dir(digest)) if "lease" not in name}
        assert left in (set(), {"data"})
        return recorded, bool(kept)

    found = cuts.judge(check)
    assert len(found) >= 20, "the writes were not seen"
    assert {(False, True), (True, True), (True, False)} == set(found), "before, between and after were all seen"


# --- controls -------------------------------------------------------------------------------------------------------


def is_copy(path: Path) -> bool:
    return path.name.startswith("#")  # without a name


LARGE = 5 * 1024 * 1024


@pytest.mark.faults
@pytest.mark.parametrize("left_out", ["no fsync", "the fsync of the copy", "nothing"])
def test_over_ten_seconds_of_write_back_a_name_has_wrong_bytes_if_the_copy_was_not_synced(
    room: Path, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of I1, and our order on the same kind of image."""
    content = content_of(LARGE)
    with monkeypatch.context() as recording:
        write_through_cache(recording)
        if left_out != "nothing":
            leave_out_fsync(recording, (lambda _path: True) if left_out == "no fsync" else is_copy)
        cuts = verification(room, content, sha256_of(content), seconds=WRITE_BACK_SECONDS)
    broken = broken_by_cuts(cuts, content, fewest=1)
    assert (I1 in broken) == (left_out != "nothing")
    assert left_out != "nothing" or broken == set()


@pytest.mark.faults
@pytest.mark.parametrize("left_out", ["the fsync of directories", "nothing"])
def test_a_name_is_gone_although_incoming_was_removed_if_its_directory_was_not_synced(
    room: Path, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of I2, and our order on the same kind of disks.

    Incoming has a disk of its own: one journal would keep the link before the unlink. And ext4 commits its whole
    journal at any fsync, so that those of the receipt would stand in for the directory's: they are left out, too.
    """
    content = content_of(65_537)
    with monkeypatch.context() as recording:
        if left_out != "nothing":
            leave_out_fsync(recording, lambda path: "verified" in path.parts and not is_copy(path))
        cuts = verification(room, content, sha256_of(content), disks=2)
    broken = broken_by_cuts(cuts, content, fewest=1)
    assert broken == (set() if left_out == "nothing" else {I2})
