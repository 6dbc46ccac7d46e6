"""A file that is already on this machine: adopted after its digest was found right, never downloaded again.

A wrong one is left alone and named. Hashing comes first, so that a wrong file costs no copy; the copy is verified like
any other bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.downloader.interrupt import Interrupt
from services.downloader.limits import MIB
from services.downloader.sources.base import (
    Body,
    ByteSource,
    Connection,
    Facts,
    PermanentSourceError,
    Supply,
    TransientSourceError,
)
from shared.states import Source
from shared.store.records import StatIdentity

_BUFFER_BYTES = 4 * MIB
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileHash:
    """The SHA-256 (hex) of a file in one state."""

    identity: StatIdentity
    sha256: str


def hash_file(path: Path, interrupt: Interrupt) -> FileHash:
    """Hash a regular file; raises OSError, PermanentSourceError if it changes meanwhile, and the interrupt."""
    with _open_regular(path) as descriptor:
        before = StatIdentity.of(os.fstat(descriptor))
        digest = hashlib.sha256()
        for chunk in _read(descriptor, 0, before.size, interrupt):
            digest.update(chunk)
        if StatIdentity.of(os.fstat(descriptor)) != before:
            raise TransientSourceError(f"{path} changes while it is read")
        return FileHash(before, digest.hexdigest())


def identity_of(path: Path, *, follow: bool = True) -> StatIdentity | None:
    """Return the state of a regular file at `path`, or None."""
    try:
        status = path.stat(follow_symlinks=follow)
    except OSError:
        return None
    return StatIdentity.of(status) if stat.S_ISREG(status.st_mode) else None


def _tell_nobody(_path: Path, _error: OSError) -> None:
    pass


class ImportedSource(ByteSource):
    """A local file with, so far, the right name; `expected` is the pinned digest."""

    kind = Source.IMPORT

    def __init__(
        self,
        path: Path,
        expected: str,
        interrupt: Interrupt,
        on_wrong: Callable[[Path, FileHash], None],
        on_unreadable: Callable[[Path, OSError], None] = _tell_nobody,
    ) -> None:
        self.url = path.absolute().as_uri()
        self._on_wrong = on_wrong
        self._on_unreadable = on_unreadable
        self.path = path
        self._expected = expected
        self._interrupt = interrupt

    def preflight(self) -> Facts:
        """Hash it: raises PermanentSourceError, naming the file, when it is not the pinned one."""
        try:
            found = hash_file(self.path, self._interrupt)
        except OSError as error:
            self._on_unreadable(self.path, error)
            raise PermanentSourceError(f"cannot read {self.path}: {error.strerror}") from error
        if found.sha256 != self._expected:
            self._on_wrong(self.path, found)
            raise PermanentSourceError(
                f"{self.path} is not the pinned file (its SHA-256 is {found.sha256}); it is left alone"
            )
        return Facts(size=found.identity.size, sha256=found.sha256)

    @contextmanager
    def _open(self, start: int, end: int, size: int | None) -> Iterator[Body]:  # noqa: ARG002 - the file's own counts
        try:
            with _open_regular(self.path) as descriptor:
                total = os.fstat(descriptor).st_size
                yield Body(start, min(end, total), total, _read(descriptor, start, min(end, total), self._interrupt))
        except OSError as error:
            raise PermanentSourceError(f"cannot read {self.path}: {error.strerror}") from error


class ImportedSupply(Supply):
    """Local files of the pinned name, each tried by itself, over one connection."""

    def __init__(
        self,
        paths: Sequence[Path],
        expected: str,
        on_wrong: Callable[[Path, FileHash], None],
        on_unreadable: Callable[[Path, OSError], None] = _tell_nobody,
    ) -> None:
        self.places = len(paths)
        self._paths = tuple(paths)
        self._expected = expected
        self._on_wrong = on_wrong
        self._on_unreadable = on_unreadable

    def connect(self, interrupt: Interrupt) -> Connection:
        """Return the files; there is nothing to close."""
        told = (self._on_wrong, self._on_unreadable)
        places = (ImportedSource(path, self._expected, interrupt, *told) for path in self._paths)
        return Connection(tuple(places), close=lambda: None)


@contextmanager
def _open_regular(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermanentSourceError(f"{path} is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, start: int, end: int, interrupt: Interrupt) -> Iterator[bytes]:
    while start < end:
        interrupt.check()
        chunk = os.pread(descriptor, min(_BUFFER_BYTES, end - start), start)
        if not chunk:
            return
        yield chunk
        start += len(chunk)
