"""Steps 2 and 3: a copy that nobody else can reach, hashed as it is written.

Renaming the downloader's own inode is not safe: whoever holds a writable descriptor could change it afterwards. So
each buffer is read once, hashed, and that same buffer is written: what is in the copy is what was hashed, whatever
happens to the source meanwhile. The copy has no name (`O_TMPFILE`), so a crash leaves nothing; where the file system
has no such files it has a random name in `.partial`, which the housekeeping of the next start removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from services.verifier.linux import reserve, start_writeback
from services.verifier.verdict import Pass, PassEnd
from shared.errors import DiskFullError
from shared.store.layout import StoreLayout

BUFFER_BYTES = 4 * 1024 * 1024  # large enough that calls cost nothing, small enough to notice a stop at once
# What open(2) answers where unnamed files are not to be had (EISDIR: kernels that do not know the flag).
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})

OnBytes = Callable[[int], None]
"""Called with the number of bytes done so far, after every buffer."""


@dataclass(frozen=True, slots=True)
class PrivateCopy:
    """An open copy under way; `partial` is its name, where it has to have one."""

    descriptor: int
    partial: Path | None

    def fill(self, source: int, *, size: int, stop: threading.Event, on_bytes: OnBytes) -> Pass:
        """Step 3: copy and hash `source` from byte 0, at most `size` + 1 bytes; raises OSError."""
        os.lseek(source, 0, os.SEEK_SET)
        whole = read_through(source, limit=size, stop=stop, on_bytes=on_bytes, sink=self._append)
        if whole.end is PassEnd.EOF:
            os.ftruncate(self.descriptor, whole.read_bytes)  # the room that was reserved and not needed
        return whole

    def _append(self, buffer: memoryview, offset: int) -> None:
        written = 0
        while written < len(buffer):
            written += os.pwrite(self.descriptor, buffer[written:], offset + written)
        start_writeback(self.descriptor, offset, len(buffer))


@contextmanager
def private_copy(layout: StoreLayout, digest: str, size: int) -> Iterator[PrivateCopy]:
    """Step 2: yield an empty private copy with room for `size` bytes. Without promotion nothing of it is left.

    Raises DiskFullError when there is no room, OSError otherwise.
    """
    copy = _open_copy(layout, digest)
    try:
        _make_room(copy.descriptor, layout, size)
        yield copy
    finally:
        os.close(copy.descriptor)
        if copy.partial is not None:
            with suppress(FileNotFoundError):  # promoted: the name is another one now
                copy.partial.unlink()


def read_through(
    source: int,
    *,
    limit: int,
    stop: threading.Event,
    on_bytes: OnBytes,
    sink: Callable[[memoryview, int], None] | None = None,
) -> Pass:
    """Hash from the present offset to the end, at most `limit` + 1 bytes, giving each buffer to `sink` as well.

    Raises OSError.
    """
    digest = hashlib.sha256()
    buffer = bytearray(min(BUFFER_BYTES, limit + 1))
    view = memoryview(buffer)
    done = 0
    while done <= limit:
        if stop.is_set():
            return Pass(done, digest.hexdigest(), PassEnd.STOPPED)
        count = os.readv(source, [view[: limit + 1 - done]])
        if count == 0:
            return Pass(done, digest.hexdigest(), PassEnd.EOF)
        digest.update(view[:count])
        if sink is not None:
            sink(view[:count], done)
        done += count
        on_bytes(done)
    return Pass(done, digest.hexdigest(), PassEnd.TOO_LONG)


def _open_copy(layout: StoreLayout, digest: str) -> PrivateCopy:
    try:
        return PrivateCopy(os.open(layout.verified, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    partial = layout.partial / f"{digest}.{secrets.token_hex(8)}"
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
    return PrivateCopy(os.open(partial, flags, 0o600), partial)


def _make_room(descriptor: int, layout: StoreLayout, size: int) -> None:
    try:
        reserve(descriptor, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        usage = os.statvfs(layout.verified)
        missing = max(1, size - usage.f_bavail * usage.f_frsize)
        raise DiskFullError(
            f"no room for a private copy of {size} bytes: {missing} are missing", missing_bytes=missing
        ) from error
