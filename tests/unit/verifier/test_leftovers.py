"""What a job finds when it begins: a verified file (step 0), or data that a crash left claimed."""

import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.records import Receipt
from shared.store.verified import has_right_receipt
from tests.support.verifier_stand import DIGEST, RIGHT, flip, value
from tests.support.verifier_store import Store, entry, sha256_of


def promoted(store: Store, verifier: Verifier) -> Path:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    return store.layout.verified_file(DIGEST, "tiny.gguf")


def test_a_right_file_without_a_receipt_is_hashed_again_and_gets_one(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    inode = file.stat().st_ino
    store.layout.receipt(DIGEST).unlink()
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None
    assert file.stat().st_ino == inode


def test_a_touched_file_keeps_its_origin_in_the_new_receipt(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    os.utime(file)
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is None
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert receipt.revision == "main"


def test_a_right_file_that_somebody_may_write_to_is_made_read_only_again(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    file.chmod(0o664)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


def test_a_changed_verified_file_is_quarantined_and_the_download_takes_its_place(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    file = promoted(store, verifier)
    file.chmod(0o644)
    file.write_bytes(flip(RIGHT, 100))
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.verified_names(DIGEST) == []
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.found) == ("tampered", sha256_of(flip(RIGHT, 100)))
    assert value(registry, "r3mes_deletions_total", reason="tampered") == 1
    promoted(store, verifier)


def test_a_forged_receipt_does_not_save_a_wrong_file_for_long(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    receipt = Receipt.read(store.layout.receipt(DIGEST))
    assert receipt is not None
    file.unlink()
    file.write_bytes(flip(RIGHT, 100))  # another inode: the old receipt does not fit
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.verified_names(DIGEST) == []


def test_a_new_file_name_for_a_verified_digest_renames_it_and_writes_a_new_receipt(
    store: Store, verifier: Verifier
) -> None:
    file = promoted(store, verifier)
    inode = file.stat().st_ino
    store.accept(entry(RIGHT, file_name="renamed.gguf"))
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert store.verified_names(DIGEST) == ["receipt.json", "renamed.gguf"]
    assert store.layout.verified_file(DIGEST, "renamed.gguf").stat().st_ino == inode
    assert has_right_receipt(store.layout, DIGEST, "renamed.gguf") is not None


# What a crash left claimed.


@pytest.mark.parametrize("with_journal", [True, False])
def test_data_that_a_crash_left_claimed_is_judged_again(store: Store, verifier: Verifier, with_journal: bool) -> None:
    journal = store.put(DIGEST, RIGHT)
    store.layout.data(DIGEST).rename(store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}")
    if not with_journal:
        store.layout.journal(DIGEST).unlink()
    assert verifier.verify(DIGEST) is (Outcome.PROMOTED if with_journal else Outcome.NOTHING)
    names = [path.name for path in store.layout.incoming_dir(DIGEST).iterdir()]
    assert names == ([] if with_journal else ["data"])


def test_a_claimed_file_beside_a_newer_download_is_deleted(store: Store, verifier: Verifier) -> None:
    journal = store.put(DIGEST, b"old")
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    store.layout.data(DIGEST).rename(claimed)
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert not claimed.exists()
