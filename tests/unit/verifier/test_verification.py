"""Real files through the whole promote path, in this process: which verdict, and what it leaves."""

import stat
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.metrics import VerifierMetrics
from services.verifier.progress import SilentObserver
from services.verifier.rejected import MAX_RECORDS, read_rejected, write_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.trust import TrustWatch
from shared.store.verified import has_right_receipt
from tests.support.verifier_stand import DIGEST, RIGHT, flip, make_verifier, value
from tests.support.verifier_store import Store, entry, sha256_of


def test_a_right_file_is_promoted_and_incoming_is_removed(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    journal = store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    assert file.read_bytes() == RIGHT
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert file.stat().st_nlink == 1
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o777 == 0o755, "others may look, and nobody else may write"
    assert stat.S_IMODE(store.layout.receipt(DIGEST).stat().st_mode) == 0o444
    assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert (receipt.source, receipt.revision, receipt.size) == (journal.source, "main", len(RIGHT))
    assert value(registry, "r3mes_promotions_total") == 1
    assert value(registry, "r3mes_verifications_total", result="match") == 1
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)


@pytest.mark.parametrize(
    ("wrong", "found_whole"),
    [
        pytest.param(flip(RIGHT, 0), True, id="the first bit flipped"),
        pytest.param(flip(RIGHT, len(RIGHT) - 1), True, id="a bit of the last byte flipped"),
        pytest.param(RIGHT[:-1], True, id="truncated by a byte"),
        pytest.param(RIGHT + b"\0", True, id="one byte more"),
        pytest.param(b"", True, id="empty"),
    ],
)
def test_wrong_bytes_are_deleted_recorded_and_counted(
    store: Store, verifier: Verifier, registry: CollectorRegistry, wrong: bytes, found_whole: bool
) -> None:
    journal = store.put(DIGEST, wrong)
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert store.verified_names(DIGEST) == []
    assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert [path.name for path in store.layout.rejected.iterdir()] == [f"{DIGEST}-1.json"]
    assert record.reason == "mismatch"
    assert record.generation == journal.generation
    assert (record.found == sha256_of(wrong)) is found_whole
    assert value(registry, "r3mes_verifications_total", result="mismatch") == 1
    assert value(registry, "r3mes_deletions_total", reason="mismatch") == 1
    assert value(registry, "r3mes_promotions_total") == 0


def test_a_file_longer_than_the_genesis_says_is_not_read_to_its_end(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "models", entry(RIGHT, size_bytes=len(RIGHT)))
    store.put(DIGEST, RIGHT + bytes(10_000_000))
    assert make_verifier(store).verify(DIGEST) is Outcome.REJECTED
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.size, record.found) == (len(RIGHT) + 1, None)


def test_a_journal_that_says_more_than_there_is_adds_nothing_to_a_right_file(store: Store, verifier: Verifier) -> None:
    size = len(RIGHT) + 50_000  # what room is reserved for
    store.put(DIGEST, RIGHT, size=size, prefix=size, ranges=((0, size),))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == RIGHT
    assert store.wrong_verified_files() == []


def test_a_second_job_for_a_verified_digest_is_a_success_and_reads_nothing(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    store.put(DIGEST, RIGHT)
    verifier.verify(DIGEST)
    store.put(DIGEST, flip(RIGHT, 5))  # a late duplicate of the download
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert not store.layout.data(DIGEST).exists()
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED


def test_a_digest_that_is_not_pinned_is_refused_and_nothing_is_touched(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    other = sha256_of(b"other")
    store.put(other, b"other")
    assert verifier.verify(other) is Outcome.REFUSED
    assert store.layout.data(other).read_bytes() == b"other"
    assert store.verified_names(other) == []
    assert value(registry, "r3mes_jobs_refused_total", reason="not_pinned") == 1


def test_a_staged_digest_is_verified_too(store: Store, verifier: Verifier) -> None:
    staged = Store.make(store.layout.root.parent / "staged", entry(b"staged", "next"))
    store.layout.next_genesis.write_bytes(staged.layout.genesis.read_bytes())
    digest = sha256_of(b"staged")
    store.put(digest, b"staged")
    assert verifier.verify(digest) is Outcome.PROMOTED


def test_without_any_download_there_is_nothing_to_do(verifier: Verifier) -> None:
    assert verifier.verify(DIGEST) is Outcome.NOTHING


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"complete": False}, id="incomplete"),
        pytest.param({"ino": 1}, id="another inode"),
        pytest.param({"sha256": sha256_of(b"other")}, id="another digest"),
    ],
)
def test_nothing_is_pronounced_without_a_complete_journal_of_this_inode(
    store: Store, verifier: Verifier, change: dict[str, object]
) -> None:
    store.put(DIGEST, flip(RIGHT, 7))
    store.write_journal(DIGEST, size=len(RIGHT), **change)
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.layout.data(DIGEST).exists()
    assert read_rejected(store.layout, DIGEST) == {}


def test_at_most_twenty_records_a_digest_and_one_a_generation(store: Store, verifier: Verifier) -> None:
    generation = "a" * 32
    for _again in range(2):
        store.put(DIGEST, b"wrong", generation=generation)
        verifier.verify(DIGEST)
    assert len(read_rejected(store.layout, DIGEST)) == 1
    for _again in range(MAX_RECORDS + 3):
        last = store.put(DIGEST, b"wrong")
        verifier.verify(DIGEST)
    records = read_rejected(store.layout, DIGEST)
    assert len(records) == MAX_RECORDS
    names = {path.name for path in store.layout.rejected.iterdir()}
    assert names == {f"{DIGEST}-{number}.json" for number in range(1, 21)}
    assert last.generation in {record.generation for record in records.values()}
    assert generation not in {record.generation for record in records.values()}  # the oldest went first


def test_a_record_is_new_once_a_generation(store: Store, verifier: Verifier) -> None:
    store.put(DIGEST, b"wrong")
    verifier.verify(DIGEST)
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert write_rejected(store.layout, record) is False
    assert write_rejected(store.layout, record.model_copy(update={"generation": "another"})) is True
    assert len(read_rejected(store.layout, DIGEST)) == 2


def test_the_genesis_that_is_worked_with_is_told(verifier: Verifier, registry: CollectorRegistry) -> None:
    sha256 = verifier.poll_trust().genesis.sha256
    assert value(registry, "r3mes_genesis_info", sha256=sha256) == 1


def test_how_long_each_verdict_took_is_told_and_nothing_for_a_job_without_one(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    for content in (None, flip(RIGHT, 5), RIGHT):
        if content is not None:
            store.put(DIGEST, content)
        verifier.verify(DIGEST)
    assert value(registry, "r3mes_verification_duration_seconds_count") == 2
    assert 0 < value(registry, "r3mes_verification_duration_seconds_sum") < 600


class Listener(SilentObserver):
    """Remembers which verdicts it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def tell_verdict(self, digest: str) -> None:
        self.told.append(digest)


def test_others_are_told_of_verdicts_alone(store: Store, registry: CollectorRegistry) -> None:
    listener = Listener()
    metrics = VerifierMetrics(registry)
    verifier = Verifier(store.layout, TrustWatch(store.layout), metrics, threading.Event(), listener)
    told: list[int] = []
    for content in (None, flip(RIGHT, 5), RIGHT, None):
        if content is not None:
            store.put(DIGEST, content)
        verifier.verify(DIGEST)
        told.append(len(listener.told))
    assert told == [0, 1, 2, 3], "nothing, rejected, promoted, verified already"
    assert set(listener.told) == {DIGEST}
