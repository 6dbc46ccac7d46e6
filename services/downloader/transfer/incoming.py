"""The incoming data of one model: one generation, written at positions, made durable, then told in the journal.

Invariant: the journal's `ranges` never say more than what a sync of the data has made durable; a journal without its
inode is void. A new generation removes the old journal first, then the old data, then makes a new inode.
Order: `resume` or `start` → `write_at` (any thread) … `sync` (one thread) … → `complete` → `close`.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from services.downloader.transfer.ranges import Ranges, add_range, covered, prefix
from services.downloader.transfer.space import Mode
from shared.errors import DiskFullError, StoreError
from shared.genesis import ModelPin
from shared.states import Source
from shared.store.atomic import fsync_dir, sweep_temporaries
from shared.store.layout import INCOMING_FILE_MODE, INCOMING_MODE, StoreLayout
from shared.store.records import MAX_RANGES, Journal

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_CANNOT_PREALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Origin:
    """What identifies the bytes for a resume, beside digest and size, and where they come from. Never an ETag."""

    source: Source
    url: str
    revision: str


def read_journal(layout: StoreLayout, digest: str) -> Journal | None:
    """Return the journal of `digest` if it holds: right digest, and its inode is the data that lies there."""
    journal = Journal.read(layout.journal(digest))
    if journal is None or journal.sha256 != digest:
        return None
    try:
        status = layout.data(digest).lstat()
    except OSError:
        return None
    right = stat.S_ISREG(status.st_mode) and status.st_ino == journal.ino and status.st_size == journal.size
    return journal if right else None


def fitting_journal(layout: StoreLayout, pin: ModelPin) -> Journal | None:
    """Return the journal of a pin's data, if it holds and its size is one that the pin allows."""
    journal = read_journal(layout, pin.sha256)
    if journal is None or journal.size > pin.required_bytes or pin.size_bytes not in {None, journal.size}:
        return None
    return journal


def prepare_directory(layout: StoreLayout, digest: str) -> None:
    """Make the model's incoming directory, with its rights, if it is not there; raises OSError."""
    directory = layout.incoming_dir(digest)
    if not directory.exists():
        directory.mkdir(exist_ok=True)
        directory.chmod(INCOMING_MODE)
        fsync_dir(layout.incoming)


def remove_generation(layout: StoreLayout, digest: str) -> None:
    """Remove journal and data, the journal first, so that no journal ever speaks of absent data; raises OSError."""
    layout.journal(digest).unlink(missing_ok=True)
    layout.data(digest).unlink(missing_ok=True)
    sweep_temporaries(layout.incoming_dir(digest))
    fsync_dir(layout.incoming_dir(digest))


class IncomingFile:
    """The open data of one generation. Writing raises DiskFullError when there is no room, StoreError else."""

    def __init__(self, layout: StoreLayout, journal: Journal, descriptor: int) -> None:
        self._layout = layout
        self._journal = journal
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._written: Ranges = journal.ranges
        self._is_lost = False

    @classmethod
    def resume(cls, layout: StoreLayout, digest: str, size: int, origin: Origin, instance: str) -> Self | None:
        """Open what is there if it is the same digest, size, source and revision; else None."""
        journal = read_journal(layout, digest)
        wanted = (size, origin.source, origin.revision)
        if journal is None or (journal.size, journal.source, journal.revision) != wanted:
            return None
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(layout.data(digest), flags)
        if os.fstat(descriptor).st_ino != journal.ino:
            os.close(descriptor)
            return None
        mine = journal.model_copy(
            update={"instance": instance, "prefix": journal.durable_prefix, "url": origin.url, "complete": False}
        )
        return cls(layout, mine, descriptor)

    @classmethod
    def start(
        cls, layout: StoreLayout, digest: str, size: int, origin: Origin, instance: str, mode: Mode = Mode.NORMAL
    ) -> Self:
        """Remove what is there and begin a generation: a new inode and a journal without ranges.

        The inode is preallocated, or sparse where there is room for one copy only.
        """
        with _translated(f"cannot begin {digest[:12]}"):
            prepare_directory(layout, digest)
            remove_generation(layout, digest)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(layout.data(digest), flags, INCOMING_FILE_MODE)
            try:
                os.fchmod(descriptor, INCOMING_FILE_MODE)
                _preallocate(descriptor, size) if mode is Mode.NORMAL else os.ftruncate(descriptor, size)
                os.fsync(descriptor)
                journal = Journal(
                    sha256=digest,
                    size=size,
                    generation=secrets.token_hex(16),
                    ino=os.fstat(descriptor).st_ino,
                    instance=instance,
                    source=origin.source,
                    url=origin.url[:4096],
                    revision=origin.revision,
                    mode=mode.value,
                    prefix=0,
                    ranges=(),
                    complete=False,
                    updated_at=time.time(),
                )
                journal.write(layout.journal(digest))
            except BaseException:
                os.close(descriptor)
                layout.data(digest).unlink(missing_ok=True)
                raise
        return cls(layout, journal, descriptor)

    def is_of(self, size: int, origin: Origin) -> bool:
        """Tell whether these bytes may be continued from `origin`."""
        mine = self._journal
        return (mine.size, mine.source, mine.revision) == (size, origin.source, origin.revision)

    @property
    def size(self) -> int:
        """The whole file's size."""
        return self._journal.size

    @property
    def generation(self) -> str:
        """The generation's name, 32 hex digits."""
        return self._journal.generation

    @property
    def written(self) -> Ranges:
        """What has been written, durable or not."""
        return self._written

    @property
    def received(self) -> int:
        """Bytes written."""
        return covered(self._written)

    @property
    def durable(self) -> int:
        """Bytes that are durable."""
        return covered(self._journal.ranges)

    @property
    def mode(self) -> Mode:
        """How much room there was for this generation."""
        return Mode(self._journal.mode)

    @property
    def unsynced(self) -> int:
        """Bytes that a SIGKILL would cost now."""
        return self.received - self.durable

    def is_named(self) -> bool:
        """Tell whether the name still leads to this inode: the verifier may void a generation at any time."""
        try:
            return self._layout.data(self._journal.sha256).lstat().st_ino == self._journal.ino
        except OSError:
            return False

    def write_at(self, offset: int, chunk: bytes | memoryview) -> None:
        """Write all of `chunk` at `offset`, within the size."""
        if offset + len(chunk) > self.size:
            raise StoreError(f"refused to write beyond {self.size} bytes")  # the source's limits come first
        start, view = offset, memoryview(chunk)
        with _translated("cannot write"):
            while view:
                count = os.pwrite(self._descriptor, view, offset)
                view, offset = view[count:], offset + count
        with self._lock:
            self._written = add_range(self._written, start, offset)

    def sync(self) -> None:
        """Make what was written durable, then say so in the journal; nothing to do if nothing is new."""
        ranges = self._written[:MAX_RANGES]
        if ranges == self._journal.ranges:
            return
        with _translated("cannot make the data durable"):
            self._make_durable()
            self._replace_journal(ranges, complete=False)

    def complete(self) -> None:
        """All bytes are there: make them durable and announce it."""
        with _translated("cannot complete the data"):
            self._make_durable()
            self._replace_journal(self._written, complete=True)

    def close(self) -> None:
        """Close the descriptor; what is not synced may be lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _make_durable(self) -> None:
        """Sync; never again after a failure, since the kernel may have dropped the pages and would say all is well."""
        if self._is_lost:
            raise StoreError("an earlier sync failed: what came since the last journal is not to be trusted")
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._is_lost = True
            raise

    def _replace_journal(self, ranges: Ranges, *, complete: bool) -> None:
        readable = prefix(self._written)
        changes = {"ranges": ranges, "prefix": readable, "complete": complete, "updated_at": time.time()}
        journal = Journal.model_validate({**self._journal.model_dump(), **changes})
        journal.write(self._layout.journal(journal.sha256))
        self._journal = journal


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn OSError into DiskFullError (no room) or StoreError (anything else)."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError(f"{doing}: no space left", missing_bytes=0) from error
        raise StoreError(f"{doing}: {error}", next_step="check the disk and the store's rights") from error


def _preallocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_PREALLOCATE:
            raise
        os.ftruncate(descriptor, size)
