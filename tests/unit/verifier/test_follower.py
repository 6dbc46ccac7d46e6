"""Following a download step by step, in this process: what is copied when, and what the job makes of it."""

import errno
import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import follower as follower_module
from services.verifier import private_copy as private_copy_module
from services.verifier.follower import Follower
from services.verifier.low_space import LowSpaceCopy
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from tests.support.slow_download import MIB, Download
from tests.support.verifier_stand import DIGEST, RIGHT, flip, value
from tests.support.verifier_store import Store, entry, sha256_of
from tests.unit.verifier.test_hostile_store import make_hostile

WHOLE_STEPS = len(RIGHT) // MIB * MIB


@pytest.fixture
def follower(verifier: Verifier) -> Follower:
    return Follower(verifier)


def copied(verifier: Verifier, digest: str = DIGEST) -> int | None:
    begun = verifier.copies.get(digest)
    return None if begun is None else begun.copy.hashing.done


def test_it_copies_whole_steps_of_what_is_announced_and_the_job_only_the_rest(
    store: Store, verifier: Verifier, follower: Follower, registry: CollectorRegistry
) -> None:
    download = Download(store, RIGHT)
    for received, expected in ((1000, None), (MIB + 5, MIB), (MIB + 9, MIB), (len(RIGHT) - 1, WHOLE_STEPS)):
        download.receive(received)
        assert follower.step(DIGEST) is False
        assert copied(verifier) == expected
    download.complete()
    # What was copied is not read again: it may be gone from incoming, and the copy is right.
    with store.layout.data(DIGEST).open("r+b") as data:
        data.write(bytes(WHOLE_STEPS))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == RIGHT
    assert copied(verifier) is None
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)


def test_a_turn_is_bounded_so_that_others_have_theirs(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "TURN_BYTES", MIB)
    Download(store, RIGHT).receive(len(RIGHT))
    assert follower.step(DIGEST) is True
    assert copied(verifier) == MIB
    assert follower.step(DIGEST) is False
    assert copied(verifier) == WHOLE_STEPS


def test_a_new_generation_drops_the_copy_and_begins_at_zero(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    Download(store, flip(RIGHT, 0), DIGEST).receive(2 * MIB)
    follower.step(DIGEST)
    first = verifier.copies.get(DIGEST)
    newer = Download(store, RIGHT)
    newer.receive(MIB)
    follower.step(DIGEST)
    second = verifier.copies.get(DIGEST)
    assert first is not None
    assert second is not None
    assert first.generation != second.generation == newer.generation
    assert copied(verifier) == MIB
    newer.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_the_same_generation_with_another_inode_is_another_file(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    store.layout.data(DIGEST).rename(store.layout.incoming_dir(DIGEST) / "kept")  # so that its number is not reused
    store.layout.data(DIGEST).write_bytes(RIGHT)
    download.announce(prefix=MIB)
    follower.step(DIGEST)
    assert copied(verifier) == MIB


def test_a_dead_writers_prefix_counts_only_as_far_as_it_is_durable(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT)
    download.renew(instance="f" * 32)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    assert copied(verifier) is None
    download.announce(ranges=((0, MIB + 7),))
    follower.step(DIGEST)
    assert copied(verifier) == MIB


def test_a_prefix_beyond_the_file_ends_with_the_file(store: Store, verifier: Verifier, follower: Follower) -> None:
    download = Download(store, RIGHT)
    os.truncate(store.layout.data(DIGEST), 0)
    download.receive(MIB + 3, announce=False)
    download.announce(prefix=len(RIGHT))
    follower.step(DIGEST)
    assert copied(verifier) == MIB
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_lying_prefix_costs_one_more_pass_and_no_verdict(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT)
    download.announce(prefix=len(RIGHT))  # zeros so far
    follower.step(DIGEST)
    assert copied(verifier) == WHOLE_STEPS
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert read_rejected(store.layout, DIGEST) == {}


@pytest.mark.parametrize("ends_right", [True, False])
def test_bytes_that_change_after_they_were_copied_never_make_a_wrong_verdict(
    store: Store, verifier: Verifier, follower: Follower, ends_right: bool
) -> None:
    """Wrong while the follower reads, right (or not) when the job comes: the file that is there then is judged."""
    download = Download(store, flip(RIGHT, 9), DIGEST)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    download.complete()
    if ends_right:
        with store.layout.data(DIGEST).open("r+b") as data:
            data.write(RIGHT[:MIB])
    assert verifier.verify(DIGEST) is (Outcome.PROMOTED if ends_right else Outcome.REJECTED)
    assert store.wrong_verified_files() == []
    assert len(read_rejected(store.layout, DIGEST)) == (0 if ends_right else 1)


def test_a_file_that_is_longer_than_announced_is_rejected_after_a_full_pass(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    download.complete()
    with store.layout.data(DIGEST).open("ab") as data:
        data.write(b"more")
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert len(read_rejected(store.layout, DIGEST)) == 1


def test_without_a_pin_or_with_a_verified_name_nothing_is_followed(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    other = RIGHT[::-1]
    Download(store, other).receive(2 * MIB)
    assert sha256_of(other) not in follower.candidates()
    follower.step(sha256_of(other))
    assert copied(verifier, sha256_of(other)) is None
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    store.layout.verified_dir(DIGEST).mkdir()
    store.layout.verified_file(DIGEST, "tiny.gguf").write_bytes(b"is it right? the job will see")
    follower.step(DIGEST)
    assert copied(verifier) is None


def test_a_pin_that_goes_takes_its_copy_along(store: Store, verifier: Verifier, follower: Follower) -> None:
    Download(store, RIGHT).receive(2 * MIB)
    follower.step(DIGEST)
    store.accept(entry(b"another"))
    assert DIGEST in follower.candidates()
    follower.step(DIGEST)
    assert copied(verifier) is None
    assert DIGEST not in follower.candidates()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"ino": 1}, id="another inode"),
        pytest.param({"sha256": "0" * 64}, id="another digest"),
        pytest.param({"complete": True, "prefix": len(RIGHT), "ranges": ((0, len(RIGHT)),)}, id="complete already"),
    ],
)
def test_a_journal_that_does_not_hold_or_is_complete_begins_nothing(
    store: Store, verifier: Verifier, follower: Follower, change: dict[str, object]
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    download.announce(**change)
    follower.step(DIGEST)
    assert copied(verifier) is None


def test_a_journal_that_is_gone_drops_the_copy(store: Store, verifier: Verifier, follower: Follower) -> None:
    Download(store, RIGHT).receive(2 * MIB)
    follower.step(DIGEST)
    store.layout.journal(DIGEST).unlink()
    follower.step(DIGEST)
    assert copied(verifier) is None


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "directory", "socket"])
def test_hostile_data_is_not_followed(
    store: Store, verifier: Verifier, follower: Follower, tmp_path: Path, kind: str
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    make_hostile(kind, store.layout.data(DIGEST), tmp_path)
    if kind not in {"symlink", "socket", "directory"}:
        download.announce(prefix=2 * MIB)
    assert follower.step(DIGEST) is False
    assert copied(verifier) is None


@pytest.mark.parametrize("content", [b"[" * 20_000, b"{}", b"\xff\xfe", b"x" * 100_000])
def test_a_hostile_journal_is_none(store: Store, verifier: Verifier, follower: Follower, content: bytes) -> None:
    Download(store, RIGHT).receive(2 * MIB)
    store.layout.journal(DIGEST).write_bytes(content)
    assert follower.step(DIGEST) is False
    assert copied(verifier) is None


def test_without_room_for_a_second_copy_it_gives_way_and_the_job_makes_room(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed: list[int] = []
    real = private_copy_module.open_empty
    monkeypatch.setattr(private_copy_module, "open_empty", lambda *a: unnamed.append(1) or real(*a))
    monkeypatch.setattr(private_copy_module, "reserve", _only_for_partials(store))
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    assert follower.step(DIGEST) is False
    assert copied(verifier) is None
    assert follower.step(DIGEST) is False
    assert len(unnamed) == 1, "it rests for a while"
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == RIGHT
    assert list(store.layout.partial.iterdir()) == []


def _only_for_partials(store: Store):  # noqa: ANN202
    def reserve(descriptor: int, _size: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(store.layout.partial):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return reserve


def test_a_disk_that_fails_under_the_copy_drops_it_and_the_job_reads_all(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(store, RIGHT)
    download.receive(MIB)
    follower.step(DIGEST)
    download.receive(2 * MIB)
    with monkeypatch.context() as failing:

        def pwrite(*_arguments: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        failing.setattr(os, "pwrite", pwrite)
        assert follower.step(DIGEST) is False
    assert copied(verifier) is None
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_the_copy_of_a_download_that_nobody_writes_gives_its_room_back_in_time(
    store: Store, verifier: Verifier, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB, durable=True)
    follower.step(DIGEST)
    store.layout.lease(DIGEST).unlink()  # paused
    follower.step(DIGEST)
    assert copied(verifier) == 2 * MIB
    monkeypatch.setattr(follower_module, "IDLE_SECONDS", -1.0)
    follower.step(DIGEST)
    assert copied(verifier) is None
    follower.step(DIGEST)
    assert copied(verifier) is None, "nothing new was announced"
    download.renew()
    download.complete()
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_stop_ends_a_step_and_keeps_incoming(store: Store, verifier: Verifier, follower: Follower) -> None:
    Download(store, RIGHT).receive(2 * MIB)
    verifier.stop.set()
    assert follower.step(DIGEST) is False
    assert copied(verifier) == 0
    assert store.layout.data(DIGEST).exists()


def test_announced_low_space_makes_a_partial_and_drops_an_unnamed_copy(
    store: Store, verifier: Verifier, follower: Follower
) -> None:
    download = Download(store, RIGHT)
    download.receive(2 * MIB)
    follower.step(DIGEST)
    download.announce(mode="low-space")
    follower.step(DIGEST)
    begun = verifier.copies.get(DIGEST)
    assert begun is not None
    assert isinstance(begun.copy, LowSpaceCopy)
    assert copied(verifier) == 2 * MIB
