"""Writing beside hashing: an error comes up where the next buffer would, and what is not written is not counted."""

import errno
import os
import threading
from pathlib import Path

import pytest

from services.verifier import private_copy as private_copy_module
from services.verifier.beside import WriteBeside
from services.verifier.private_copy import open_private_copy
from tests.support.verifier_stand import DIGEST, RIGHT
from tests.support.verifier_store import Store

BUFFER_BYTES = 1 << 16


def threads_that_write() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("write")]


@pytest.fixture(params=["in turn", "beside"])
def small_buffers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", BUFFER_BYTES)
    monkeypatch.setattr(private_copy_module, "BESIDE_FROM_BYTES", 0 if request.param == "beside" else 2**40)


def bytes_of(descriptor: int) -> bytes:
    """Through a descriptor that does not go past the page cache."""
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()


@pytest.mark.usefixtures("small_buffers")
def test_bytes_of_a_failed_write_are_never_counted_as_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, good = os.pwrite, 5

    def pwrite(descriptor: int, buffer: memoryview, offset: int) -> int:
        if offset >= good * BUFFER_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffer, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    (tmp_path / "source").write_bytes(RIGHT)
    told: list[int] = []
    copy = open_private_copy(store.layout, DIGEST, len(RIGHT))
    with (tmp_path / "source").open("rb") as source, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        copy.advance(source.fileno(), until=len(RIGHT), stop=threading.Event(), on_bytes=told.append)
    assert copy.hashing.done == told[-1] == good * BUFFER_BYTES
    assert bytes_of(copy.descriptor)[: good * BUFFER_BYTES] == RIGHT[: good * BUFFER_BYTES]
    assert threads_that_write() == []
    copy.close()


@pytest.mark.usefixtures("small_buffers")
def test_every_short_write_is_finished_before_the_next_buffer_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, buffer, offset: real(descriptor, buffer[:4096], offset))
    (tmp_path / "source").write_bytes(RIGHT)
    copy = open_private_copy(store.layout, DIGEST, len(RIGHT))
    with (tmp_path / "source").open("rb") as source:
        whole = copy.fill(source.fileno(), size=len(RIGHT), stop=threading.Event(), on_bytes=lambda _done: None)
    assert whole.found == DIGEST
    assert bytes_of(copy.descriptor) == RIGHT
    copy.close()


def test_nothing_is_being_written_any_more_when_the_block_is_left() -> None:
    may_go_on, written = threading.Event(), []

    def write(buffer: memoryview, offset: int) -> None:
        may_go_on.wait(10)
        written.append((bytes(buffer), offset))

    def leave_early() -> None:
        with WriteBeside(write) as beside:
            beside.begin(memoryview(b"bytes"), 7)
            may_go_on.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_early()
    assert written == [(b"bytes", 7)]
    assert threads_that_write() == []


def test_what_is_no_error_of_the_disk_comes_up_as_well() -> None:
    def write(_buffer: memoryview, _offset: int) -> None:
        raise ZeroDivisionError

    with WriteBeside(write) as beside:
        beside.begin(memoryview(b"bytes"), 0)
        with pytest.raises(ZeroDivisionError):
            beside.end()
