"""Reading a verified file in nobody's way: at idle I/O priority and past the page cache.

`O_DIRECT` reads what is on the disk, which is what a scrub is for; what miners have in memory stays there, and nothing
of others is pushed out for bytes that nobody will want again. Where a file system has no such reads the pages that were
read are given up afterwards; those that a miner has mapped stay, since the kernel drops no mapped page.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading

from services.verifier.linux import idle_io

_BUFFER_BYTES = 1024 * 1024
_BLOCK_BYTES = 4096  # what O_DIRECT wants offsets, lengths and addresses to be multiples of, at most


def hash_quietly(descriptor: int, size: int, stop: threading.Event) -> str | None:
    """Return the SHA-256 of an open file of `size` bytes, None when told to stop meanwhile. Raises OSError.

    Of a file that goes on beyond `size` it is not the whole file's.
    """
    digest = hashlib.sha256()
    done = 0
    is_direct = _set_direct(descriptor, wanted=True)
    view = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # anonymous memory is aligned to pages
    with idle_io():
        while done <= size:
            if stop.is_set():
                return None
            try:
                count = os.preadv(descriptor, [view], done)
            except OSError as error:
                if not is_direct or error.errno != errno.EINVAL:
                    raise
                is_direct = _set_direct(descriptor, wanted=False)  # larger blocks than ours
                continue
            if count == 0:
                break
            digest.update(view[:count])
            if not is_direct:
                os.posix_fadvise(descriptor, done, count, os.POSIX_FADV_DONTNEED)
            done += count
            if is_direct and count % _BLOCK_BYTES:
                is_direct = _set_direct(descriptor, wanted=False)  # the tail: no multiple of a block follows
    return digest.hexdigest()


def _set_direct(descriptor: int, *, wanted: bool) -> bool:
    """Read past the page cache from now on, or not; return whether it is so."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
    except OSError:  # this file system has no such reads
        return False
    return wanted
