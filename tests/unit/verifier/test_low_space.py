"""Low-space mode on real files: incoming gives its bytes up as the partial takes them, and no byte is ever nowhere."""

import errno
import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import follower as follower_module
from services.verifier import low_space, private_copy
from services.verifier.follower import Follower
from services.verifier.housekeeping import sweep_orphans
from services.verifier.incoming import open_incoming
from services.verifier.low_space import BytesLostError, LowSpaceCopy
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.records import PartialNote
from shared.store.verified import has_right_receipt
from tests.support.low_space import KIB, assert_no_byte_is_lost
from tests.support.slow_download import Download
from tests.support.verifier_stand import DIGEST, RIGHT, flip, make_verifier, value
from tests.support.verifier_store import Store

COMMIT = 256 * KIB


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_space, "COMMIT_BYTES", COMMIT)
    monkeypatch.setattr(private_copy, "BUFFER_BYTES", 64 * KIB)
    monkeypatch.setattr(follower_module, "STEP_BYTES", 64 * KIB)


@pytest.fixture
def follower(verifier: Verifier) -> Follower:
    return Follower(verifier)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def note_of(store: Store) -> PartialNote | None:
    return PartialNote.read(store.layout.partial_note(DIGEST))


def durable(store: Store) -> int:
    note = note_of(store)
    return 0 if note is None else note.durable


def follow(follower: Follower) -> None:
    while follower.step(DIGEST):
        pass


def restarted(verifier: Verifier, store: Store, registry: CollectorRegistry | None = None) -> Verifier:
    """Another verifier, as after the end of the first, which keeps nothing."""
    verifier.copies.drop(DIGEST)
    verifier.copies.partials.release()
    return make_verifier(store, registry)


def assert_promoted(store: Store) -> None:
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    assert file.read_bytes() == RIGHT
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert file.stat().st_nlink == 1
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None
    assert list(store.layout.partial.iterdir()) == []
    assert {path.name for path in store.layout.incoming_dir(DIGEST).iterdir()} <= {"lease.json"}


def test_incoming_gives_up_what_is_durable_in_the_partial_and_the_rest_is_judged(
    store: Store, verifier: Verifier, follower: Follower, registry: CollectorRegistry
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    for received in range(COMMIT // 2, len(RIGHT), COMMIT // 2):
        download.receive(received, durable=True)
        follow(follower)
        assert durable(store) == received // COMMIT * COMMIT
        assert allocated(store.layout.data(DIGEST)) <= received - durable(store) + 8 * KIB
        assert_no_byte_is_lost(store, RIGHT, received)
    note = note_of(store)
    assert note is not None
    assert note.generation == download.generation
    assert stat.S_IMODE(store.layout.partial_note(DIGEST).stat().st_mode) == 0o640
    assert stat.S_IMODE(store.layout.partial_file(DIGEST).stat().st_mode) == 0o600
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert_promoted(store)
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)


def test_a_complete_file_needs_no_second_room_either(store: Store, verifier: Verifier) -> None:
    Download(store, RIGHT, mode="low-space").complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert_promoted(store)


@pytest.mark.parametrize("how", ["a restart", "a crash after more was written", "a crash in the promotion"])
def test_after_a_restart_the_partial_is_hashed_again_and_goes_on(
    store: Store, verifier: Verifier, follower: Follower, how: str
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(5 * COMMIT // 2, durable=True)
    follow(follower)
    partial = store.layout.partial_file(DIGEST)
    if how == "a crash after more was written":
        with partial.open("ab") as file:
            file.write(b"garbage that was never durable")
    if how == "a crash in the promotion":
        partial.chmod(0o444)
    again = restarted(verifier, store)
    follow(Follower(again))
    begun = again.copies.get(DIGEST)
    assert begun is not None
    assert isinstance(begun.copy, LowSpaceCopy)
    assert (begun.copy.durable, begun.copy.hashing.done) == (2 * COMMIT, 5 * COMMIT // 2)
    download.complete()
    assert again.verify(DIGEST) is Outcome.PROMOTED
    assert_promoted(store)


def test_a_partial_that_changed_on_disk_is_found_out(store: Store, verifier: Verifier, follower: Follower) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    with store.layout.partial_file(DIGEST).open("r+b") as file:
        file.write(flip(RIGHT, 3)[:10])
    download.complete()
    assert restarted(verifier, store).verify(DIGEST) is Outcome.REJECTED
    assert store.verified_names(DIGEST) == []


def test_wrong_bytes_have_their_verdict_after_the_one_pass(
    store: Store, verifier: Verifier, follower: Follower, registry: CollectorRegistry
) -> None:
    download = Download(store, flip(RIGHT, 7), DIGEST, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.generation, record.source) == ("mismatch", download.generation, "huggingface")
    assert list(store.layout.partial.iterdir()) == []
    assert not store.layout.data(DIGEST).exists()
    assert value(registry, "r3mes_deletions_total", reason="mismatch") == 1


@pytest.mark.parametrize("who", ["the follower", "the job"])
@pytest.mark.parametrize("what", ["partial gone", "partial short", "note gone", "incoming punched further"])
def test_lost_bytes_void_the_generation_and_blame_no_source(
    store: Store, verifier: Verifier, follower: Follower, what: str, who: str
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(3 * COMMIT, durable=True)
    follow(follower)
    assert durable(store) == 3 * COMMIT
    download.receive(4 * COMMIT, durable=True)
    match what:
        case "partial gone":
            store.layout.partial_file(DIGEST).unlink()
        case "partial short":
            os.truncate(store.layout.partial_file(DIGEST), 3 * COMMIT - 1)
        case "note gone":
            store.layout.partial_note(DIGEST).unlink()
        case _:
            with store.layout.data(DIGEST).open("r+b") as file:
                low_space.punch_hole(file.fileno(), 3 * COMMIT + 8 * KIB)
    registry = CollectorRegistry()
    again = restarted(verifier, store, registry)
    if who == "the job":
        download.complete()
        assert again.verify(DIGEST) is Outcome.REJECTED
    else:
        follow(Follower(again))
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.source, record.found) == ("bytes_lost", None, None)
    assert record.generation == download.generation
    assert not store.layout.data(DIGEST).exists()
    assert not store.layout.journal(DIGEST).exists()
    assert list(store.layout.partial.iterdir()) == []
    assert value(registry, "r3mes_deletions_total", reason="bytes_lost") == 1
    Download(store, RIGHT, mode="low-space").complete()
    assert again.verify(DIGEST) is Outcome.PROMOTED


def test_another_generations_partial_is_removed_and_the_new_one_begins_at_zero(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    Download(store, flip(RIGHT, 0), DIGEST, mode="low-space").receive(2 * COMMIT, durable=True)
    follow(follower)
    assert durable(store) == 2 * COMMIT
    newer = Download(store, RIGHT, mode="low-space")
    newer.receive(COMMIT, durable=True)
    follow(follower)
    assert durable(store) == COMMIT
    assert_no_byte_is_lost(store, RIGHT, COMMIT)
    newer.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_what_is_written_again_below_durable_is_given_up_again(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    """After a power cut the downloader may know of fewer bytes than the partial has, and fetch them once more."""
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT)  # written, announced, not durable
    follow(follower)
    download.received = COMMIT
    download.receive(3 * COMMIT, durable=True)
    follow(Follower(restarted(verifier, store)))
    assert durable(store) == 3 * COMMIT
    assert allocated(store.layout.data(DIGEST)) <= 8 * KIB


def test_what_a_crash_left_unpunched_is_given_up_at_the_start(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    Download(store, RIGHT, mode="low-space").receive(2 * COMMIT, durable=True)
    with monkeypatch.context() as crashing:
        crashing.setattr(low_space, "punch_hole", lambda *_arguments: None)
        follow(follower)
    assert allocated(store.layout.data(DIGEST)) >= 2 * COMMIT
    follow(Follower(restarted(verifier, store)))
    assert allocated(store.layout.data(DIGEST)) <= 8 * KIB
    assert_no_byte_is_lost(store, RIGHT, 2 * COMMIT)


def test_with_the_verified_name_there_the_leftovers_go(store: Store, verifier: Verifier, follower: Follower) -> None:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    store.layout.partial_file(DIGEST).write_bytes(RIGHT[:COMMIT])
    PartialNote(generation=download.generation, durable=COMMIT).write(store.layout.partial_note(DIGEST))
    follow(follower)
    assert store.layout.partial_file(DIGEST).read_bytes() == RIGHT[:COMMIT], "never opened for writing"
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert_promoted(store)


def test_a_partial_without_its_other_half_is_swept_and_one_with_it_is_not(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    verifier.copies.drop(DIGEST)
    stray = "0" * 64
    store.layout.partial_file(stray).write_bytes(b"x")
    (store.layout.partial / f".{DIGEST}.json.{'0' * 16}").write_bytes(b"{")
    sweep_orphans(verifier)
    assert sorted(path.name for path in store.layout.partial.iterdir()) == [DIGEST, f"{DIGEST}.json"]
    store.layout.data(DIGEST).unlink()
    sweep_orphans(verifier)
    assert list(store.layout.partial.iterdir()) == []


def test_a_journal_that_does_not_hold_touches_nothing(store: Store, verifier: Verifier, follower: Follower) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    content = store.layout.journal(DIGEST).read_bytes()
    store.layout.journal(DIGEST).write_bytes(b"{}")
    follow(follower)
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert durable(store) == 2 * COMMIT
    store.layout.journal(DIGEST).write_bytes(content)
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_no_room_for_the_next_step_gives_up_what_can_be_and_waits(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(COMMIT // 2, durable=True)
    follow(follower)
    assert durable(store) == 0
    room = len(RIGHT)

    def reserve(_descriptor: int, size: int) -> None:
        if size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(private_copy, "reserve", reserve)
    monkeypatch.setattr(follower_module, "REST_SECONDS", 0.0)
    room = COMMIT // 2
    download.receive(COMMIT, durable=True)
    follow(follower)
    assert durable(store) == COMMIT // 2, "a smaller step gave some room back"
    begun = verifier.copies.get(DIGEST)
    assert begun is not None, "and what is copied is not hashed again"
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert verifier.copies.get(DIGEST) is begun
    assert_no_byte_is_lost(store, RIGHT, len(RIGHT))
    room = len(RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert_promoted(store)


@pytest.mark.parametrize("failing", ["fsync", "note"])
def test_a_failure_before_the_note_is_durable_punches_nothing(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(COMMIT, durable=True)

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(*((os, "fsync", fail) if failing == "fsync" else (PartialNote, "write", fail)))
        follow(follower)
    assert allocated(store.layout.data(DIGEST)) >= COMMIT
    assert verifier.copies.get(DIGEST) is None, "a failed fsync is never tried again on the same copy"
    assert durable(store) == 0
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_incoming_that_cannot_be_punched_costs_room_and_no_bytes(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(low_space, "punch_hole", refuse)
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    assert durable(store) == 2 * COMMIT
    assert allocated(store.layout.data(DIGEST)) >= 2 * COMMIT
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_two_verifiers_never_write_one_partial(store: Store, verifier: Verifier, follower: Follower) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    second = make_verifier(store)
    follow(Follower(second))
    assert second.copies.get(DIGEST) is None
    download.complete()
    assert second.verify(DIGEST) is Outcome.ERROR
    assert durable(store) == 2 * COMMIT
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_partial_that_lost_bytes_after_it_was_opened_is_found_out(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT, mode="low-space")
    download.receive(2 * COMMIT, durable=True)
    follow(follower)
    second = restarted(verifier, store)
    with open_incoming(store.layout, DIGEST) as incoming:
        assert incoming is not None
        journal = incoming.read_journal()
        assert journal is not None
        begun = second.copies.begin(incoming, journal, len(RIGHT), followed=True)
        os.truncate(store.layout.partial_file(DIGEST), durable(store) - 1)
        with pytest.raises(BytesLostError):
            begun.copy.advance(incoming.descriptor, until=3 * COMMIT, stop=second.stop, on_bytes=lambda _done: None)
        begun.close()


def test_no_room_for_the_note_punches_nothing_and_waits(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    Download(store, RIGHT, mode="low-space").complete()

    def no_room(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(PartialNote, "write", no_room)
        assert verifier.verify(DIGEST) is Outcome.ERROR
    assert allocated(store.layout.data(DIGEST)) >= len(RIGHT)
    assert verifier.copies.get(DIGEST) is not None, "what is copied is not copied again"
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert_promoted(store)
