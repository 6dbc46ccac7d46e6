"""Low-space mode under SIGKILL before every change of the disk, once and twice in a row: no byte is ever nowhere."""

import itertools
import os
from pathlib import Path

import pytest

from services.verifier.rejected import read_rejected
from services.verifier.run_once import Outcome, verify_once
from shared.store.layout import StoreLayout
from shared.store.verified import has_right_receipt
from tests.support.crash_child import KILLED, STEP_BYTES, start_following, start_verification
from tests.support.low_space import assert_no_byte_is_lost
from tests.support.slow_download import Download
from tests.support.verifier_store import Store, entry, sha256_of

COMMIT = 4 * STEP_BYTES
LONG = os.urandom(2 * COMMIT + 20_000)
SHORT = os.urandom(COMMIT + 100)
CHILD_SECONDS = 30.0


def verify_in_child(store: Store, digest: str, die_before: int = 0) -> bool:
    """Verify in a child; return whether it was killed on the way."""
    child = start_verification(store.layout.root, digest, die_before=die_before, small_steps=True)
    child.join(CHILD_SECONDS)
    assert child.exitcode in {0, KILLED}
    return child.exitcode == KILLED


def follow_in_child(store: Store, digest: str, die_before: int = 0) -> bool:
    child = start_following(store.layout.root, digest, die_before=die_before)
    child.join(CHILD_SECONDS)
    assert child.exitcode in {0, KILLED}
    return child.exitcode == KILLED


def assert_holds(store: Store, content: bytes, received: int) -> None:
    """I1 and I2."""
    assert store.wrong_verified_files() == []
    assert_no_byte_is_lost(store, content, received)


def assert_ends_verified(store: Store, content: bytes) -> None:
    digest = sha256_of(content)
    assert verify_once(store.layout, digest) in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
    assert store.layout.verified_file(digest, "tiny.gguf").read_bytes() == content
    assert has_right_receipt(store.layout, digest, "tiny.gguf") is not None
    left = {path.name for path in store.layout.incoming_dir(digest).iterdir()}
    assert left == {"lease.json"}
    assert [path for path in store.layout.partial.iterdir() if not path.name.startswith(".")] == []
    assert read_rejected(store.layout, digest) == {}


def make(root: Path, content: bytes, digest: str | None = None) -> tuple[Store, Download]:
    store = Store.make(root, entry(digest or content))
    return store, Download(store, content, digest, mode="low-space")


@pytest.mark.slow
def test_killed_before_any_change_of_the_job_it_ends_verified(tmp_path: Path) -> None:
    deaths = 0
    for die_before in itertools.count(1):
        store, download = make(tmp_path / str(die_before), LONG)
        download.complete()
        if not verify_in_child(store, download.digest, die_before):
            break
        deaths += 1
        assert_holds(store, LONG, len(LONG))
        assert_ends_verified(store, LONG)
    assert deaths >= 40, "the changes of the disk were not seen"


@pytest.mark.slow
def test_killed_before_any_change_while_following_it_ends_verified(tmp_path: Path) -> None:
    """What was announced and not durable counts as well: it is in the page cache, which survives the process."""
    received = len(LONG) - 1000
    deaths = 0
    for die_before in itertools.count(1):
        store, download = make(tmp_path / str(die_before), LONG)
        download.receive(COMMIT + 5, durable=True)
        download.receive(received, announce=False)
        download.announce(ranges=((0, COMMIT + 5),))
        if not follow_in_child(store, download.digest, die_before):
            break
        deaths += 1
        assert_holds(store, LONG, received)
        assert not follow_in_child(store, download.digest), "a second start goes on"
        assert_holds(store, LONG, received)
        download.complete()
        assert_ends_verified(store, LONG)
    assert deaths >= 25, "the changes of the disk were not seen"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_twice_in_a_row_it_ends_verified(tmp_path: Path) -> None:
    """Before every change the first time, before every sixth the second, each time beginning with another one."""
    first_deaths = second_deaths = 0
    for first in itertools.count(1):
        store, download = make(tmp_path / str(first), SHORT)
        download.complete()
        if not verify_in_child(store, download.digest, first):
            break
        first_deaths += 1
        for second in itertools.count(1 + first % 6, 6):
            twice, again = make(tmp_path / f"{first}-{second}", SHORT)
            again.complete()
            assert verify_in_child(twice, again.digest, first)
            assert_holds(twice, SHORT, len(SHORT))
            if not verify_in_child(twice, again.digest, second):
                break
            second_deaths += 1
            assert_holds(twice, SHORT, len(SHORT))
            assert_ends_verified(twice, SHORT)
    assert first_deaths >= 20, "the changes of the disk were not seen"
    assert second_deaths >= 90


@pytest.mark.slow
def test_killed_before_any_change_wrong_bytes_are_never_promoted_and_recorded_once(tmp_path: Path) -> None:
    wrong, digest = LONG[::-1], sha256_of(LONG)
    deaths = 0
    for die_before in itertools.count(1):
        store, download = make(tmp_path / str(die_before), wrong, digest)
        download.complete()
        if not verify_in_child(store, digest, die_before):
            break
        deaths += 1
        assert store.verified_names(digest) == []
        assert verify_once(store.layout, digest) in {Outcome.REJECTED, Outcome.NOTHING}
        assert len(read_rejected(store.layout, digest)) == 1
        assert [path for path in store.layout.partial.iterdir() if not path.name.startswith(".")] == []
        left = {path.name for path in store.layout.incoming_dir(digest).iterdir()}
        assert left in ({"lease.json"}, {"lease.json", "data"})
    assert deaths >= 30, "the changes of the disk were not seen"


@pytest.mark.slow
def test_killed_before_any_change_lost_bytes_are_recorded_once_and_blame_nobody(tmp_path: Path) -> None:
    deaths = 0
    for die_before in itertools.count(1):
        store, download = make(tmp_path / str(die_before), LONG)
        download.receive(len(LONG) - 1, durable=True)
        assert not follow_in_child(store, download.digest)
        os.truncate(store.layout.partial_file(download.digest), 1)
        download.complete()
        if not verify_in_child(store, download.digest, die_before):
            break
        deaths += 1
        verify_once(StoreLayout(store.layout.root), download.digest)
        (record,) = read_rejected(store.layout, download.digest).values()
        assert (record.reason, record.source) == ("bytes_lost", None)
        assert store.verified_names(download.digest) == []
    assert deaths >= 5, "the changes of the disk were not seen"
