"""SIGKILL at every change of the disk, and at random moments: the invariants hold, and the next run ends it."""

import itertools
import os
import random
import time
from pathlib import Path

import pytest

from services.verifier.rejected import read_rejected
from services.verifier.run_once import Outcome, verify_once
from shared.store.verified import has_right_receipt
from tests.support.crash_child import KILLED, start_verification
from tests.support.verifier_store import Store, entry, hash_of_file, sha256_of
from tests.support.waiting import wait_until

RIGHT = os.urandom(200_000)
DIGEST = sha256_of(RIGHT)
CHILD_SECONDS = 30.0


def run_child(store: Store, die_before: int, *, without_tmpfile: bool = False) -> bool:
    """Verify in a child; return whether it was killed on the way."""
    child = start_verification(store.layout.root, DIGEST, die_before=die_before, without_tmpfile=without_tmpfile)
    child.join(CHILD_SECONDS)
    assert child.exitcode in {0, KILLED}
    return child.exitcode == KILLED


@pytest.mark.slow
@pytest.mark.parametrize("without_tmpfile", [False, True], ids=["unnamed copy", "named copy"])
def test_killed_before_any_change_a_right_file_stays_and_ends_verified(tmp_path: Path, without_tmpfile: bool) -> None:
    deaths = 0
    for die_before in itertools.count(1):
        store = Store.make(tmp_path / str(die_before), entry(RIGHT))
        store.put(DIGEST, RIGHT)
        if not run_child(store, die_before, without_tmpfile=without_tmpfile):
            break
        deaths += 1
        assert store.wrong_verified_files() == []
        assert store.holds(DIGEST)
        assert verify_once(store.layout, DIGEST) in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
        assert store.wrong_verified_files() == []
        assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None
        assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []
    assert deaths >= 15, "the changes of the disk were not seen"


@pytest.mark.slow
def test_killed_before_any_change_wrong_bytes_are_never_promoted_and_recorded_once(tmp_path: Path) -> None:
    wrong = RIGHT[:-1] + b"?"
    deaths = 0
    for die_before in itertools.count(1):
        store = Store.make(tmp_path / str(die_before), entry(RIGHT))
        store.put(DIGEST, wrong)
        if not run_child(store, die_before):
            break
        deaths += 1
        assert store.verified_names(DIGEST) == []
        assert verify_once(store.layout, DIGEST) in {Outcome.REJECTED, Outcome.NOTHING}
        assert len(read_rejected(store.layout, DIGEST)) == 1
        left = {path.name for path in store.layout.incoming_dir(DIGEST).iterdir()}
        assert left in (set(), {"data"}), "without its journal the data is void, and the downloader's to begin anew"
    assert deaths >= 7, "the changes of the disk were not seen"


@pytest.mark.slow
def test_killed_before_any_change_a_tampered_file_does_not_come_back(tmp_path: Path) -> None:
    deaths = 0
    for die_before in itertools.count(1):
        store = Store.make(tmp_path / str(die_before), entry(RIGHT))
        store.put(DIGEST, RIGHT)
        assert verify_once(store.layout, DIGEST) is Outcome.PROMOTED
        file = store.layout.verified_file(DIGEST, "tiny.gguf")
        file.chmod(0o644)
        file.write_bytes(RIGHT[:-1] + b"?")
        if not run_child(store, die_before):
            break
        deaths += 1
        verify_once(store.layout, DIGEST)
        assert store.wrong_verified_files() == []
        assert store.verified_names(DIGEST) == []
    assert deaths >= 6, "the changes of the disk were not seen"


@pytest.mark.slow
def test_killed_before_any_change_a_renamed_model_ends_under_its_new_name(tmp_path: Path) -> None:
    deaths = 0
    for die_before in itertools.count(1):
        store = Store.make(tmp_path / str(die_before), entry(RIGHT))
        store.put(DIGEST, RIGHT)
        assert verify_once(store.layout, DIGEST) is Outcome.PROMOTED
        store.accept(entry(RIGHT, file_name="renamed.gguf"))
        if not run_child(store, die_before):
            break
        deaths += 1
        assert store.wrong_verified_files() == []
        assert verify_once(store.layout, DIGEST) is Outcome.ALREADY_VERIFIED
        models = [name for name in store.verified_names(DIGEST) if name.endswith(".gguf")]
        assert models == ["renamed.gguf"]
        assert has_right_receipt(store.layout, DIGEST, "renamed.gguf") is not None
    assert deaths >= 4, "the changes of the disk were not seen"


KILLS = 30
MOST_TRIALS = 150


@pytest.mark.slow
def test_killed_at_thirty_random_moments_a_large_file_ends_verified(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(64 * 1024 * 1024)  # noqa: S311 - content, not a secret
    digest = sha256_of(content)
    store = Store.make(tmp_path / "models", entry(content))
    file = store.layout.verified_file(digest, "tiny.gguf")
    moments = random.Random(2)  # noqa: S311
    whole = 0.3  # seconds that a whole run takes, corrected by every one that is not killed
    killed = 0
    for _trial in range(MOST_TRIALS):
        if not store.layout.data(digest).exists():
            file.unlink(missing_ok=True)
            store.put(digest, content)
        started = time.monotonic()
        child = start_verification(store.layout.root, digest)
        moment = started + moments.uniform(0, whole)
        wait_until(lambda moment=moment: time.monotonic() >= moment, CHILD_SECONDS, "the moment of the kill")
        child.kill()
        child.join(CHILD_SECONDS)
        assert store.wrong_verified_files() == []
        killed += child.exitcode == KILLED
        whole = whole * 1.1 if child.exitcode == KILLED else (time.monotonic() - started) * 0.9
        if killed == KILLS:
            break
    assert killed == KILLS, "the kills came too late"
    verify_once(store.layout, digest)
    assert hash_of_file(file) == digest
    assert has_right_receipt(store.layout, digest, "tiny.gguf") is not None
