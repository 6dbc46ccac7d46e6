"""Steps 2 and 3 where the file system can share extents: clone first, then hash the clone.

Invariant: what is hashed is read back from the private descriptor, never from the source, and no byte is cloned again
once it is hashed. A write to the source afterwards goes to extents of its own, so what was hashed is what is promoted,
whoever holds the source open. A clone takes no room for bytes, so none is reserved and none is missing.

Whether it can be done is found out at the first try. A clone that fails later, for want of room for its extents' map,
ends like a write that fails: the next who begins tries the whole file at once, or writes. Of a file that is longer than
it should be no more is cloned than tells it so. On the way to the clone the kernel writes what of the source was only
in memory; the fsync of the promotion makes the map durable, and with it the bytes.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from services.verifier.linux import clone_range
from services.verifier.private_copy import OnBytes, PrivateCopy, open_empty
from services.verifier.verdict import Pass, PassEnd
from shared.store.layout import StoreLayout


class ClonedCopy(PrivateCopy):
    """A copy that shares the source's extents up to `cloned`, in blocks of the file system's size."""

    def __init__(self, descriptor: int, partial: Path | None, *, block_bytes: int, may_reject: bool) -> None:
        super().__init__(descriptor, partial, may_reject=may_reject)
        self._block_bytes = block_bytes
        self._cloned = 0
        self._is_whole = False

    def advance(self, source: int, *, until: int, stop: threading.Event, on_bytes: OnBytes) -> PassEnd | None:
        """Clone on to byte `until`, as far as that is whole blocks, and hash the clone. Raises OSError."""
        until = until // self._block_bytes * self._block_bytes
        if until > self._cloned:
            clone_range(source, self.descriptor, self._cloned, until - self._cloned)
            self._cloned = until
        return self.hashing.advance(self.descriptor, until=until, stop=stop, on_bytes=on_bytes)

    def fill(self, source: int, *, size: int, stop: threading.Event, on_bytes: OnBytes) -> Pass:
        """Clone what is left of a complete file and hash the clone, at most `size` + 1 bytes in all; raises OSError."""
        self.clone_rest(source, size)
        return self.hashing.finish(self.descriptor, limit=size, stop=stop, on_bytes=on_bytes)

    def clone_rest(self, source: int, size: int) -> None:
        """Clone to the end of the source, once; of one that is longer than `size` one byte more. Raises OSError."""
        if self._is_whole:
            return
        end = os.fstat(source).st_size
        if end > size:
            end = min(end, (size // self._block_bytes + 1) * self._block_bytes)  # whole blocks, unless they end there
        if end > self._cloned:
            clone_range(source, self.descriptor, self._cloned, end - self._cloned)
            self._cloned = end
        self._is_whole = True


def open_cloned_copy(
    layout: StoreLayout, digest: str, source: int, size: int, *, is_complete: bool, may_reject: bool
) -> ClonedCopy | None:
    """Return a clone of `source` to be hashed and closed by the caller, None where extents cannot be shared.

    Of a file that is still growing the first block is cloned, to find out; it is cloned again before it is hashed.
    Raises OSError when no private file can be made.
    """
    block_bytes = os.statvfs(source).f_bsize
    if os.fstat(source).st_size < (1 if is_complete else block_bytes):
        return None
    copy = ClonedCopy(*open_empty(layout, digest), block_bytes=block_bytes, may_reject=may_reject)
    try:
        if is_complete:
            copy.clone_rest(source, size)
        else:
            clone_range(source, copy.descriptor, 0, block_bytes)
    except OSError:  # not here, or not now: whatever it is, a copy that is written has its own answer
        copy.close()
        return None
    return copy
