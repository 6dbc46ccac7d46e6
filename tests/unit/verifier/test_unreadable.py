"""What cannot be read or made durable now says nothing about the bytes: none is given up for it, nothing stays open."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from services.verifier import low_space, private_copy
from services.verifier.housekeeping import sweep_orphans
from services.verifier.incoming import open_incoming, sweep_claimed
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.records import PartialNote
from tests.support.low_space import KIB, assert_no_byte_is_lost
from tests.support.slow_download import Download
from tests.support.verifier_stand import DIGEST, RIGHT, make_verifier
from tests.support.verifier_store import Store

COMMIT = 256 * KIB


@pytest.fixture
def half_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A verifier of before has taken the first bytes from incoming; then the rest came."""
    monkeypatch.setattr(low_space, "COMMIT_BYTES", COMMIT)
    monkeypatch.setattr(private_copy, "BUFFER_BYTES", 64 * KIB)
    download = Download(store, RIGHT, mode="low-space")
    download.complete()
    layout = store.layout
    layout.partial_file(DIGEST).write_bytes(RIGHT[:COMMIT])
    PartialNote(generation=download.generation, durable=COMMIT).write(layout.partial_note(DIGEST))
    with layout.data(DIGEST).open("r+b") as data:
        data.write(bytes(COMMIT))
        low_space.punch_hole(data.fileno(), COMMIT)
    assert_no_byte_is_lost(store, RIGHT, len(RIGHT))
    return store


def open_files(store: Store) -> list[str]:
    links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [link for link in links if link.startswith(f"{store.layout.root}/")]


def hide(path: Path) -> Path:
    """Put a link to itself in a path's place, which nothing reads through; return where the real one is now."""
    hidden = path.with_name("hidden")
    path.rename(hidden)
    path.symlink_to(path.name)
    return hidden


def test_a_note_that_cannot_be_read_does_not_make_its_partial_void(half_given_up: Store, verifier: Verifier) -> None:
    note = half_given_up.layout.partial_note(DIGEST)
    hidden = hide(note)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert read_rejected(half_given_up.layout, DIGEST) == {}
    hidden.replace(note)
    assert_no_byte_is_lost(half_given_up, RIGHT, len(RIGHT))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_incoming_whose_holes_cannot_be_known_now_is_not_taken_for_lost(
    half_given_up: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "lseek", unreadable)
        assert verifier.verify(DIGEST) is Outcome.ERROR
    assert read_rejected(half_given_up.layout, DIGEST) == {}
    assert_no_byte_is_lost(half_given_up, RIGHT, len(RIGHT))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_data_that_cannot_be_looked_at_does_not_make_its_partial_an_orphan(
    half_given_up: Store, verifier: Verifier
) -> None:
    incoming = half_given_up.layout.incoming_dir(DIGEST)
    hidden = hide(incoming)
    sweep_orphans(verifier)
    incoming.unlink()
    hidden.rename(incoming)
    assert_no_byte_is_lost(half_given_up, RIGHT, len(RIGHT))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


@pytest.mark.parametrize("call", ["flock", "ftruncate", "fsync of the directory"])
def test_a_partial_that_cannot_be_begun_leaves_nothing_open(
    store: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    verifier = make_verifier(store)
    where, name = {
        "flock": (fcntl, "flock"),
        "ftruncate": (os, "ftruncate"),
        "fsync of the directory": (low_space, "fsync_dir"),
    }[call]
    if call == "ftruncate":
        request.getfixturevalue("half_given_up")
    else:
        Download(store, RIGHT, mode="low-space").complete()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        assert verifier.verify(DIGEST) is Outcome.ERROR
    verifier.copies.partials.release()
    assert open_files(store) == []
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def unreadable_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "journal.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)


def test_a_journal_that_cannot_be_read_now_is_not_removed_with_the_data_that_was_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.put(DIGEST, RIGHT)
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        store.write_journal(DIGEST, size=len(RIGHT))  # a newer generation's
        with monkeypatch.context() as broken:
            unreadable_journal(broken)
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                opened.remove(read.generation)
    assert store.layout.journal(DIGEST).exists()


def test_of_claimed_and_new_data_neither_goes_while_the_journal_cannot_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = store.put(DIGEST, RIGHT)
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    store.layout.data(DIGEST).rename(claimed)
    store.layout.data(DIGEST).write_bytes(b"begun, and no journal yet")
    with monkeypatch.context() as broken:
        unreadable_journal(broken)
        assert sweep_claimed(store.layout, DIGEST) == 0
    assert claimed.read_bytes() == RIGHT
    assert sweep_claimed(store.layout, DIGEST) == 1
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
