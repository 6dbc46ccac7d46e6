"""Steps 2 and 3: a copy that nobody else can reach, hashed as it is written.

Renaming the downloader's own inode is not safe: whoever holds a writable descriptor could change it afterwards. So
each buffer is read once, and that same buffer is hashed and written, side by side: what is in the copy is what was
hashed, whatever happens to the source meanwhile. The copy has no name (`O_TMPFILE`), so a crash leaves nothing; where
the file system has no such files it has a random name in `.partial`, which the housekeeping of the next start removes.

A copy may be made in one go (`fill`) or step by step while the download runs (`advance`, then `fill`). Whole blocks are
written past the page cache (`O_DIRECT`) where the file system has that: less work, and nothing left for the fsync.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.verifier.beside import WriteBeside, WriteInTurn, Writing
from services.verifier.linux import reserve, start_writeback
from services.verifier.verdict import Pass, PassEnd
from shared.errors import DiskFullError
from shared.store.layout import StoreLayout

BUFFER_BYTES = 4 * 1024 * 1024  # large enough that calls cost nothing, small enough to have one for each thread
# So much and more is written by a thread while it is hashed: a complete file, or a follower's turn when it lags behind.
BESIDE_FROM_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 4096  # what O_DIRECT wants offsets, lengths and addresses to be multiples of, at most
# What open(2) answers where unnamed files are not to be had (EISDIR: kernels that do not know the flag).
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})

OnBytes = Callable[[int], None]
"""Called with the number of bytes done so far, after every buffer."""


class Hashing:
    """A pass under way: the SHA-256 of the first `done` bytes. After an OSError it is of no use any more."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.done = 0

    def advance(
        self, source: int, *, until: int, stop: threading.Event, on_bytes: OnBytes, writing: Writing | None = None
    ) -> PassEnd | None:
        """Hash on to byte `until`, and have each buffer written meanwhile; return why it ended before, if it did."""
        if self.done >= until:
            return None
        view = _buffer()
        while self.done < until:
            if stop.is_set():
                return PassEnd.STOPPED
            count = os.preadv(source, [view[: until - self.done]], self.done)
            if count == 0:
                return PassEnd.EOF
            buffer = view[:count]
            if writing is not None:
                writing.begin(buffer, self.done)
            self._digest.update(buffer)
            if writing is not None:
                writing.end()
            self.done += count  # only what is written as well
            on_bytes(self.done)
        return None

    def finish(
        self, source: int, *, limit: int, stop: threading.Event, on_bytes: OnBytes, writing: Writing | None = None
    ) -> Pass:
        """Hash to the end, at most `limit` + 1 bytes in all, and have each buffer written meanwhile."""
        end = self.advance(source, until=limit + 1, stop=stop, on_bytes=on_bytes, writing=writing)
        return Pass(self.done, self._digest.hexdigest(), end or PassEnd.TOO_LONG)


_kept = threading.local()


def _buffer() -> memoryview:
    """Return this thread's buffer. It is kept: the first touch of new memory costs up to a third of hashing it."""
    buffer: memoryview | None = getattr(_kept, "buffer", None)
    if buffer is None or len(buffer) != BUFFER_BYTES:
        # Anonymous memory is aligned to pages, as O_DIRECT wants it; of large pages it has few to hold during a write.
        pages = mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
        buffer = _kept.buffer = memoryview(pages)
    return buffer


class PrivateCopy:
    """An open copy under way; `partial` is its name, where it has to have one.

    `may_reject`: whether the pass began when the file was complete, so that a mismatch may be pronounced.
    """

    def __init__(self, descriptor: int, partial: Path | None = None, *, may_reject: bool = True) -> None:
        self.descriptor = descriptor
        self.partial = partial
        self.may_reject = may_reject
        self.hashing = Hashing()
        self._direct = False

    def advance(self, source: int, *, until: int, stop: threading.Event, on_bytes: OnBytes) -> PassEnd | None:
        """Step 3, in part: copy and hash on to byte `until`; return why it ended before, if it did. Raises OSError."""
        with self._writing(until - self.hashing.done) as writing:
            return self.hashing.advance(source, until=until, stop=stop, on_bytes=on_bytes, writing=writing)

    def fill(self, source: int, *, size: int, stop: threading.Event, on_bytes: OnBytes) -> Pass:
        """Step 3: copy and hash the rest of `source`, at most `size` + 1 bytes in all; raises OSError."""
        with self._writing(size + 1 - self.hashing.done) as writing:
            whole = self.hashing.finish(source, limit=size, stop=stop, on_bytes=on_bytes, writing=writing)
        if whole.end is PassEnd.EOF:
            os.ftruncate(self.descriptor, whole.read_bytes)  # the room that was reserved and not needed
        return whole

    def clear(self) -> None:
        """Remove what lies beside the verdict once it is on the disk: nothing, for a copy that has no note."""

    def close(self) -> None:
        """Leave nothing of it, unless it has been promoted."""
        os.close(self.descriptor)
        if self.partial is not None:
            with suppress(FileNotFoundError):  # promoted: the name is another one now
                self.partial.unlink()

    def prefer_direct(self) -> None:
        """Write past the page cache from now on, where the file system has that."""
        with suppress(OSError):
            flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            self._direct = True

    def _writing(self, length: int) -> Writing:
        return WriteBeside(self._append) if length >= BESIDE_FROM_BYTES else WriteInTurn(self._append)

    def _append(self, buffer: memoryview, offset: int) -> None:
        if self._direct and (len(buffer) % _BLOCK_BYTES or offset % _BLOCK_BYTES):
            self._leave_direct()  # the tail; nothing comes after it but more of a file that is too long
        written = 0
        while written < len(buffer):
            try:
                written += os.pwrite(self.descriptor, buffer[written:], offset + written)
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._leave_direct()  # it took the flag and not the write: larger blocks than ours
        if not self._direct:
            start_writeback(self.descriptor, offset, len(buffer))

    def _leave_direct(self) -> None:
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._direct = False


def open_private_copy(layout: StoreLayout, digest: str, size: int, *, may_reject: bool = True) -> PrivateCopy:
    """Step 2: return an empty private copy with room for `size` bytes, to be closed by the caller.

    Raises DiskFullError when there is no room, OSError otherwise.
    """
    descriptor, partial = open_empty(layout, digest)
    copy = PrivateCopy(descriptor, partial, may_reject=may_reject)
    try:
        make_room(descriptor, layout, size)
    except BaseException:
        copy.close()
        raise
    copy.prefer_direct()
    return copy


def make_room(descriptor: int, layout: StoreLayout, size: int) -> None:
    """Reserve room for the first `size` bytes of a copy; raises DiskFullError when there is none."""
    try:
        reserve(descriptor, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        usage = os.statvfs(layout.verified)
        missing = max(1, size - usage.f_bavail * usage.f_frsize - os.fstat(descriptor).st_blocks * 512)
        raise DiskFullError(
            f"no room for a private copy of {size} bytes: {missing} are missing", missing_bytes=missing
        ) from error


def read_through(source: int, *, limit: int, stop: threading.Event, on_bytes: OnBytes) -> Pass:
    """Hash from byte 0 to the end, at most `limit` + 1 bytes. Raises OSError."""
    return Hashing().finish(source, limit=limit, stop=stop, on_bytes=on_bytes)


def open_empty(layout: StoreLayout, digest: str) -> tuple[int, Path | None]:
    """Step 2: return a file that no other process can open, and the name that it has where it must have one.

    Raises OSError.
    """
    try:
        return os.open(layout.verified, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    partial = layout.partial / f"{digest}.{secrets.token_hex(8)}"
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
    return os.open(partial, flags, 0o600), partial
