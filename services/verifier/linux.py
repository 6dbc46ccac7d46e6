"""The three Linux calls that Python's `os` lacks. Each raises OSError like the functions of `os`."""

from __future__ import annotations

import ctypes
import errno
import os

_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


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


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range, so that the fsync at the end has little left; only a wish."""
    _libc.sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


def _check(result: int, filename: str | None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), filename)
