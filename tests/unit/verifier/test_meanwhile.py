"""What happens while the private copy is made: a new download, a file that changes, a stop."""

import os
from collections.abc import Callable

import pytest

from services.verifier import private_copy as private_copy_module
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from tests.support.verifier_stand import DIGEST, RIGHT, flip
from tests.support.verifier_store import Store


class during_the_copy:  # noqa: N801 - reads as what it does
    """Run `action` once, after the first buffer was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
        self.called = False
        self._action = action
        self._write = private_copy_module.PrivateCopy._append

        def append(copy: private_copy_module.PrivateCopy, buffer: memoryview, offset: int) -> None:
            self._write(copy, buffer, offset)
            if not self.called:
                self.called = True
                self._action()

        monkeypatch.setattr(private_copy_module.PrivateCopy, "_append", append)


def test_a_mismatch_is_not_pronounced_when_the_download_began_anew_meanwhile(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, flip(RIGHT, 7))
    begin_anew = during_the_copy(monkeypatch, lambda: store.put(DIGEST, RIGHT))
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert begin_anew.called
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_mismatch_is_not_pronounced_on_data_that_somebody_put_another_file_in_place_of(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, flip(RIGHT, 7))
    data = store.layout.data(DIGEST)

    def put_another() -> None:
        (data.parent / "another").write_bytes(b"another file, with the journal as it was")
        (data.parent / "another").rename(data)

    put = during_the_copy(monkeypatch, put_another)
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert put.called
    assert read_rejected(store.layout, DIGEST) == {}
    assert data.read_bytes().startswith(b"another")


def test_a_right_copy_is_promoted_but_a_newer_download_is_left_alone(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    newer = b"the beginning of another download"
    replaced = during_the_copy(monkeypatch, lambda: store.put(DIGEST, newer, complete=False, ranges=()))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert replaced.called
    assert store.layout.data(DIGEST).read_bytes() == newer
    assert store.layout.journal(DIGEST).exists()
    assert store.wrong_verified_files() == []


@pytest.mark.parametrize("how", ["grows", "shrinks", "is overwritten"])
def test_a_file_that_changes_while_it_is_copied_is_never_promoted_with_other_bytes(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", 1 << 16)
    store.put(DIGEST, RIGHT)

    def change() -> None:
        with store.layout.data(DIGEST).open("r+b") as file:
            match how:
                case "grows":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                case "shrinks":
                    file.truncate(1 << 17)
                case _:
                    file.seek(1 << 20)
                    file.write(b"overwritten")

    changed = during_the_copy(monkeypatch, change)
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert changed.called
    assert store.verified_names(DIGEST) == []


def test_a_stop_during_the_copy_promotes_nothing_and_keeps_incoming(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", 1 << 16)
    store.put(DIGEST, RIGHT)
    during_the_copy(monkeypatch, verifier.stop.set)
    assert verifier.verify(DIGEST) is Outcome.STOPPED
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).exists()
