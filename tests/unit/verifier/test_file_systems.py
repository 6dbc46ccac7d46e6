"""File systems that can less, or fail: no unnamed files, a failed fsync, no room, no right to remove."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import private_copy as private_copy_module
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.verified import has_right_receipt
from tests.support.unprivileged import unprivileged
from tests.support.verifier_stand import DIGEST, RIGHT, flip, make_verifier, value
from tests.support.verifier_store import Store, entry, sha256_of


def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer as a file system without O_TMPFILE does (vfat, some network file systems)."""
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)


def test_without_unnamed_files_a_named_copy_is_promoted_by_rename(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch)
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == RIGHT
    assert list(store.layout.partial.iterdir()) == []
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


def test_without_unnamed_files_wrong_bytes_leave_no_named_copy(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch)
    store.put(DIGEST, flip(RIGHT, 9))
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert list(store.layout.partial.iterdir()) == []


@pytest.mark.parametrize("refused", ["the flag", "the write"])
@pytest.mark.parametrize("content", [RIGHT, RIGHT[: 5 * 4096]], ids=["with a tail", "whole blocks"])
def test_where_nothing_is_written_past_the_page_cache_the_copy_is_as_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, content: bytes
) -> None:
    store = Store.make(tmp_path / "other", entry(content))
    verifier = make_verifier(store)
    real_fcntl, real_pwrite = fcntl.fcntl, os.pwrite
    refusals = 0

    def refuse(*arguments: int) -> int:
        nonlocal refusals
        if refused == "the flag" and arguments[1] == fcntl.F_SETFL and arguments[2] & os.O_DIRECT:
            refusals += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_fcntl(*arguments)

    def pwrite(descriptor: int, buffer: memoryview, offset: int) -> int:
        nonlocal refusals
        if refused == "the write" and real_fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refusals += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_pwrite(descriptor, buffer, offset)

    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", 1 << 20)  # so that a whole buffer comes before the tail
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "pwrite", pwrite)
    store.put(sha256_of(content), content)
    assert verifier.verify(sha256_of(content)) is Outcome.PROMOTED
    assert refusals == 1
    assert store.wrong_verified_files() == []


def test_without_unnamed_files_a_named_copy_is_closed_to_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tmpfile(monkeypatch)
    copy = private_copy_module.open_private_copy(store.layout, DIGEST, len(RIGHT))
    assert stat.S_IMODE(os.fstat(copy.descriptor).st_mode) == 0o600
    copy.close()
    assert list(store.layout.partial.iterdir()) == []


def test_a_write_that_fails_is_not_tried_again_another_way(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    real, failed = os.pwrite, []

    def pwrite(descriptor: int, buffer: memoryview, offset: int) -> int:
        if not failed:
            failed.append(offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffer, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert failed == [0]
    assert store.verified_names(DIGEST) == []
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


@pytest.mark.parametrize("failing", ["the copy", "verified/"])
def test_a_failed_fsync_discards_the_copy_and_keeps_incoming(
    store: Store, verifier: Verifier, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.put(DIGEST, RIGHT)
    real, failed = os.fsync, []

    def fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not failed and is_directory == (failing == "verified/"):
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert failed
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert value(registry, "r3mes_promotions_total") == 0
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_full_disk_promotes_nothing_keeps_incoming_and_the_next_job_succeeds(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)

    def no_room(_descriptor: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(private_copy_module, "reserve", no_room)
        assert verifier.verify(DIGEST) is Outcome.ERROR
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_an_incoming_that_cannot_be_removed_does_not_take_the_verdict_back(registry: CollectorRegistry) -> None:
    with unprivileged() as home:
        store = Store.make(home / "models", entry(RIGHT))
        store.put(DIGEST, RIGHT)
        store.layout.incoming_dir(DIGEST).chmod(0o500)
        assert make_verifier(store, registry).verify(DIGEST) is Outcome.PROMOTED
        assert store.layout.data(DIGEST).read_bytes() == RIGHT
        store.layout.incoming_dir(DIGEST).chmod(0o700)
    assert value(registry, "r3mes_verifications_total", result="error") == 1


def test_wrong_bytes_that_cannot_be_removed_are_not_counted_as_deleted(registry: CollectorRegistry) -> None:
    with unprivileged() as home:
        store = Store.make(home / "models", entry(RIGHT))
        store.put(DIGEST, flip(RIGHT, 9))
        store.layout.incoming_dir(DIGEST).chmod(0o500)
        assert make_verifier(store, registry).verify(DIGEST) is Outcome.REJECTED
        assert store.layout.data(DIGEST).exists()
        store.layout.incoming_dir(DIGEST).chmod(0o700)
    assert value(registry, "r3mes_deletions_total", reason="mismatch") == 0
    assert value(registry, "r3mes_verifications_total", result="mismatch") == 1


@pytest.mark.parametrize("failing", ["opening", "reserving"])
def test_a_copy_that_cannot_be_begun_decides_nothing(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.put(DIGEST, RIGHT)
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, mode, dir_fd=dir_fd)

    def fail(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(*((os, "open", refuse) if failing == "opening" else (private_copy_module, "reserve", fail)))
        assert verifier.verify(DIGEST) is Outcome.ERROR
    assert list(store.layout.partial.iterdir()) == []
    assert read_rejected(store.layout, DIGEST) == {}
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
