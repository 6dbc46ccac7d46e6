"""Models that left the genesis: counted across restarts, never touched while pinned, removed in an order that a kill
may cut anywhere."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import retention as retention_module
from services.verifier.orphans import sweep_orphans
from services.verifier.rejected import remove_rejected
from services.verifier.removal import Removed, remove_verified
from services.verifier.retention import Retention
from services.verifier.verification import Outcome, Verifier
from shared.acceptance.trust_state import trust_lock
from shared.acceptance.unpinned import pinned_for_now
from shared.errors import StoreError
from shared.store.layout import StoreLayout
from shared.store.records import AcceptedDocument, UnpinnedNote
from shared.store.verified import has_right_receipt
from tests.support.verifier_stand import DIGEST, RIGHT, make_verifier, value
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

OTHER = entry(sha256_of(b"another"), "other")
AT_ONCE = 1e-12


@pytest.fixture
def verified(store: Store, verifier: Verifier) -> Path:
    """The file, verified long ago by its receipt, and still pinned."""
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    receipt.model_copy(update={"verified_at": time.time() - 365 * 86400}).write(store.layout.receipt(DIGEST))
    return store.layout.verified_file(DIGEST, "tiny.gguf")


def note_of(store: Store) -> UnpinnedNote | None:
    return UnpinnedNote.read(store.layout.unpinned_note(DIGEST))


def look(verifier: Verifier, hours: float | None = AT_ONCE, times: int = 2) -> None:
    """Look that often, as one process does."""
    retention = Retention(verifier, hours)
    for _ in range(times):
        retention.look()


def test_without_the_setting_it_is_kept_and_its_leaving_is_noted(
    store: Store, verifier: Verifier, verified: Path
) -> None:
    look(verifier, None)
    assert note_of(store) is None
    store.accept(OTHER)
    look(verifier, None)
    assert verified.exists()
    note = note_of(store)
    assert note is not None
    assert note.absent_seconds == 0
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


def test_a_model_that_was_verified_a_year_ago_and_left_a_moment_ago_has_just_left(
    store: Store, verifier: Verifier, verified: Path
) -> None:
    store.accept(OTHER)
    look(verifier, 1, times=5)
    assert verified.exists()


def test_after_its_time_it_is_removed_counted_and_nothing_is_left(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path
) -> None:
    store.accept(OTHER)
    look(verifier)
    assert not verified.parent.exists()
    assert value(registry, "r3mes_deletions_total", reason="retention") == 1


def test_the_count_survives_a_restart_and_a_clock_that_is_set_back(
    store: Store, verifier: Verifier, verified: Path
) -> None:
    store.accept(OTHER)
    look(verifier, 100, times=1)
    noted = note_of(store)
    assert noted is not None
    at = store.layout.unpinned_note(DIGEST)
    day = 86400.0
    noted.model_copy(update={"absent_seconds": day, "counted_at": noted.counted_at + 1000 * day}).write(at)
    look(verifier, 100, times=1)  # another process, whose clock stands a thousand days before the note's
    after = note_of(store)
    assert after is not None
    assert after.absent_seconds == day
    assert after.counted_at == pytest.approx(time.time(), abs=60)
    look(verifier, 23.9, times=1)
    assert not verified.exists()


def test_pinned_again_the_note_goes_and_another_leaving_begins_anew(
    store: Store, verifier: Verifier, verified: Path
) -> None:
    store.accept(OTHER)
    look(verifier, 1, times=1)
    store.accept(entry(RIGHT))
    look(verifier)
    assert note_of(store) is None
    assert verified.exists()
    store.accept(OTHER)
    look(verifier, times=1)
    assert verified.exists()


def test_pinned_in_between_while_nobody_looked_it_begins_anew(store: Store, verifier: Verifier, verified: Path) -> None:
    store.accept(OTHER)
    look(verifier, 1, times=1)
    store.accept(entry(RIGHT))
    store.accept(OTHER)
    look(verifier, times=1)
    assert verified.exists()
    note = note_of(store)
    assert note is not None
    assert note.absent_seconds == 0


def test_a_staged_digest_is_not_out(store: Store, verifier: Verifier, verified: Path) -> None:
    raw = store.layout.genesis.read_bytes()
    store.accept(OTHER)
    store.layout.next_genesis.write_bytes(raw)
    look(verifier)
    assert verified.exists()
    assert note_of(store) is None


def test_a_note_that_lies_counts_as_none(store: Store, verifier: Verifier, verified: Path) -> None:
    store.accept(OTHER)
    for text in (b"[" * 10_000, b'{"absent_seconds": 1e300}', b""):
        store.layout.unpinned_note(DIGEST).write_bytes(text)
        look(verifier, times=1)
        assert verified.exists()


@contextmanager
def accepted_when_it_decides(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> Iterator[None]:
    """Let an acceptance come between the decision and the lock."""
    real = retention_module.pinned_for_now

    @contextmanager
    def late(layout: StoreLayout) -> Iterator[frozenset[str]]:
        change()
        with real(layout) as pinned:
            yield pinned

    monkeypatch.setattr(retention_module, "pinned_for_now", late)
    yield
    monkeypatch.setattr(retention_module, "pinned_for_now", real)


def test_what_is_accepted_or_staged_between_the_decision_and_the_deletion_stays(
    store: Store, verifier: Verifier, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = store.layout.genesis.read_bytes()
    changes = (lambda: store.accept(entry(RIGHT)), lambda: store.layout.next_genesis.write_bytes(raw))
    for change in changes:
        store.accept(OTHER)
        look(verifier, 1, times=1)
        with accepted_when_it_decides(monkeypatch, change):
            look(verifier)
        assert verified.exists()


def test_while_it_is_not_known_what_is_pinned_nothing_is_removed(
    store: Store, verifier: Verifier, verified: Path
) -> None:
    store.accept(OTHER)
    look(verifier, 1, times=1)
    store.layout.next_genesis.write_bytes(b"{")  # says nothing, and may have pinned it
    look(verifier)
    assert verified.exists()
    store.layout.next_genesis.unlink()
    accepted = AcceptedDocument.read(store.layout.accepted)
    assert accepted is not None
    accepted.model_copy(update={"sha256": "0" * 64}).write(store.layout.accepted)
    look(verifier)
    assert verified.exists()
    with pytest.raises(StoreError), pinned_for_now(store.layout):
        raise AssertionError("it was told what is pinned")


def test_an_acceptance_under_way_is_waited_for(store: Store, verifier: Verifier, verified: Path) -> None:
    store.accept(OTHER)
    look(verifier, 1, times=1)
    thread = threading.Thread(target=look, args=(verifier,))
    with trust_lock(store.layout):
        thread.start()
        wait_until(lambda: verifier.lock_of(DIGEST).locked(), what="the removal to have begun")
        store.accept(entry(RIGHT))
        assert verified.exists()
    thread.join(10)
    assert verified.exists()


def test_a_file_that_cannot_be_removed_harms_no_other(
    store: Store, verifier: Verifier, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1000)
    store.accept(entry(RIGHT), entry(content, "second"))
    store.put(sha256_of(content), content)
    assert verifier.verify(sha256_of(content)) is Outcome.PROMOTED
    store.accept(OTHER)
    real = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "tiny.gguf":
            raise PermissionError(1, "Operation not permitted")
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    look(verifier, times=3)
    assert verified.exists()
    assert not store.layout.verified_dir(sha256_of(content)).exists()


def test_a_verifier_that_stops_removes_nothing(store: Store, verifier: Verifier, verified: Path) -> None:
    store.accept(OTHER)
    retention = Retention(verifier, AT_ONCE)
    retention.look()
    verifier.stop.set()
    retention.look()
    assert verified.exists()


def test_an_acceptance_that_is_half_written_says_nothing(store: Store, verifier: Verifier, verified: Path) -> None:
    store.layout.accepted.unlink()
    look(verifier)
    assert verified.exists()
    assert note_of(store) is None


def test_removing_what_is_not_there_removes_nothing(store: Store) -> None:
    assert remove_verified(store.layout, DIGEST) == Removed()


def test_the_size_that_is_told_is_the_file_s(store: Store, verified: Path) -> None:
    occupied = verified.stat().st_blocks * 512
    foreign = verified.with_name("somebody's own")
    foreign.touch()
    assert remove_verified(store.layout, DIGEST) == Removed(1, occupied)
    assert [path.name for path in foreign.parent.iterdir()] == [foreign.name]


def test_records_are_removed_of_one_digest_alone(store: Store) -> None:
    for digest in (DIGEST, "0" * 64):
        for number in (1, 2):
            store.layout.rejected_file(digest, number).write_text("{}")
    assert remove_rejected(store.layout, DIGEST) == 2
    assert remove_rejected(store.layout, DIGEST) == 0
    assert [path.name[:64] for path in store.layout.rejected.iterdir()] == ["0" * 64] * 2


class Killed(BaseException):
    """Where a SIGKILL would have come."""


def kill_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `step`-th change of a directory, or sync, not happen, nor anything after it."""
    steps = itertools.count(1)

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(steps) >= step:
                raise Killed
            return real(*arguments, **options)

        return call

    for name in ("unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_killed_at_any_step_the_next_start_and_look_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = 0
    for step in itertools.count(1):
        store = Store.make(tmp_path / str(step), entry(RIGHT))
        verifier = make_verifier(store)
        store.put(DIGEST, RIGHT)
        assert verifier.verify(DIGEST) is Outcome.PROMOTED
        store.accept(OTHER)
        look(verifier, 1, times=1)
        with monkeypatch.context() as patched:
            kill_before(step, patched)
            try:
                look(verifier)
            except Killed:
                reached += 1
            else:
                break
        assert store.wrong_verified_files() == []
        restarted = make_verifier(store)
        sweep_orphans(restarted)
        look(restarted)
        assert not store.layout.verified_dir(DIGEST).exists(), f"killed before step {step}"
    assert reached >= 6, "the steps were not seen"
