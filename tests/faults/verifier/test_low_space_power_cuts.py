"""Low-space mode under a power cut after every write: no byte is punched out of incoming before its copy is durable."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.verifier.run_once import Outcome, verify_once
from shared.store.verified import has_right_receipt
from tests.support.crash_child import SMALL_STEPS
from tests.support.low_space import assert_no_byte_is_lost
from tests.support.power_cut import PowerCuts, leave_out_fsync, record_power_cuts, room_for_disks, write_through_cache
from tests.support.slow_download import Download
from tests.support.verifier_store import Store, entry, sha256_of

CONTENT = os.urandom(180_000)  # several commits of small steps
DIGEST = sha256_of(CONTENT)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    with room_for_disks(tmp_path / "room") as room:
        yield room


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, small in SMALL_STEPS:
        monkeypatch.setattr(module, name, small)


def verification(room: Path) -> PowerCuts:
    def downloaded(root: Path) -> Store:
        store = Store.make(root, entry(CONTENT))
        Download(store, CONTENT, mode="low-space").complete()
        return store

    return record_power_cuts(room, downloaded, lambda store: verify_once(store.layout, DIGEST))


def is_held(store: Store) -> bool:
    """I1 and I2 as the disk came up, and, where they hold, after the next turn."""
    try:
        assert store.wrong_verified_files() == []
        assert_no_byte_is_lost(store, CONTENT, len(CONTENT))
    except AssertionError:
        return False
    assert verify_once(store.layout, DIGEST) in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == CONTENT
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None
    return True


@pytest.mark.slow
def test_a_power_cut_after_any_write_loses_nothing(room: Path) -> None:
    found = verification(room).judge(is_held)
    assert len(found) >= 80, "the writes were not seen"
    assert all(found)


@pytest.mark.slow
def test_the_same_power_cuts_lose_bytes_when_the_partial_is_not_synced(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the fsync of the partial, incoming gives up bytes that are nowhere else yet."""
    with monkeypatch.context() as recording:
        write_through_cache(recording)
        leave_out_fsync(recording, lambda path: path.name == DIGEST and path.parent.name == ".partial")
        cuts = verification(room)
    assert not all(cuts.judge(is_held))
