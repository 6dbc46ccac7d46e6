"""The Linux calls that Python's `os` lacks. Each raises OSError like the functions of `os`."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2

# ioctl_ficlonerange(2): descriptor, offset and length (0: to the end) in the source, offset in the target.
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("qQQQ")

# inotify(7): what is asked for, and what is answered.
IN_MOVED_TO, IN_CREATE = 0x80, 0x100
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x1000000, 0x2000000
_EVENT = struct.Struct("iIII")
_EVENTS_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def rename_noreplace(source: str, target: str, *, source_dir_fd: int, target_dir_fd: int) -> None:
    """Rename, but raise FileExistsError when `target` is there: nobody's file is replaced."""
    _check(
        _libc.renameat2(source_dir_fd, os.fsencode(source), target_dir_fd, os.fsencode(target), _RENAME_NOREPLACE),
        source,
    )


def reserve(descriptor: int, size: int) -> None:
    """Reserve room for `size` bytes; raises OSError with ENOSPC. A file system that cannot is left to find out."""
    try:
        _check(_libc.fallocate(descriptor, 0, 0, size), None)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def punch_hole(descriptor: int, length: int) -> None:
    """Give the first `length` bytes of a file back to the file system; its size stays."""
    _check(_libc.fallocate(descriptor, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, 0, length), None)


def clone_range(source: int, target: int, offset: int, length: int) -> None:
    """Let `target` share the extents of `source` from `offset` on, at the same place.

    Both ends are multiples of the file system's block, but for an end that is the source's. Raises OSError where the
    file system cannot, or not between these two.
    """
    fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, offset, length, offset))


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range, so that the fsync at the end has little left; only a wish."""
    _libc.sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


class Inotify:
    """Tells what happens in directories; `descriptor` becomes readable when something did."""

    def __init__(self) -> None:
        self.descriptor = _result(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), None)

    def watch(self, directory: str, events: int) -> int:
        """Watch a directory, not following a link; return its number, the same as long as it is the same directory."""
        flags = events | _IN_ONLYDIR | _IN_DONT_FOLLOW
        return _result(_libc.inotify_add_watch(self.descriptor, os.fsencode(directory), flags), directory)

    def read(self) -> list[tuple[int, str]]:
        """Return what happened: the number of the directory (-1: the kernel lost count) and the name in it."""
        try:
            content = os.read(self.descriptor, _EVENTS_BYTES)
        except BlockingIOError:
            return []
        happened, at = [], 0
        while at < len(content):
            number, _mask, _cookie, length = _EVENT.unpack_from(content, at)
            at += _EVENT.size
            happened.append((number, os.fsdecode(content[at : at + length].rstrip(b"\0"))))
            at += length
        return happened

    def close(self) -> None:
        """End all watches."""
        os.close(self.descriptor)


def _result(result: int, filename: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), filename)
    return result


def _check(result: int, filename: str | None) -> None:
    _result(result, filename)


# ioprio_set(2), for which libc has no function: its number by machine, whom it is about, and the class.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(os.uname().machine)
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_NONE, _IOPRIO_IDLE = 0, 3 << 13

_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_libc.syscall.restype = ctypes.c_long


@contextmanager
def idle_io() -> Iterator[None]:
    """Let the calling thread have the disk only while nobody else wants it; where that is not to be had, as always."""
    _set_io_priority(_IOPRIO_IDLE)
    try:
        yield
    finally:
        _set_io_priority(_IOPRIO_NONE)


def be_nice(niceness: int) -> None:
    """Lower the calling thread's claim to a processor, for good; other threads keep theirs."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def _set_io_priority(priority: int) -> None:
    if _IOPRIO_SET is not None:
        _libc.syscall(_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, priority)  # 0: the calling thread; only a wish
