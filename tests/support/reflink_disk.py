"""A file system of its own that shares extents (XFS, btrfs), or one that does not (ext4), on a loop device."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import need

# XFS makes nothing smaller than 300 MB, btrfs wants about 110; the image is sparse and takes what is written.
IMAGE_BYTES = 320 * 1024 * 1024
MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
}
SHARING = ("xfs", "btrfs")

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("QQIIII")
_EXTENT = struct.Struct("QQQ2QI3I")
_SHARED, _SYNC = 0x2000, 1
_EXTENTS = 512


def make_image(image: Path, kind: str) -> None:
    """Make an empty file system of that kind in a new file."""
    need(MAKE[kind][0])
    with image.open("xb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run([*MAKE[kind], str(image)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """Mount an image; skips the test where this user may not."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, check=False)
    if done.returncode and os.geteuid():
        pytest.skip(f"needs the right to mount: {done.stderr.decode().strip()}")
    assert done.returncode == 0, done.stderr.decode()
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@contextlib.contextmanager
def disk_of(kind: str, directory: Path) -> Iterator[Path]:
    """Mount a new file system of that kind."""
    make_image(directory / f"{kind}.img", kind)
    with mounted(directory / f"{kind}.img", directory / kind) as disk:
        yield disk


def free_bytes(path: Path) -> int:
    """Return what is free on its file system, once everything is written."""
    os.sync()
    found = os.statvfs(path)
    return found.f_bfree * found.f_frsize


def shared_bytes(descriptor: int) -> int:
    """Return how many bytes of an open file lie in extents that another file has as well (FIEMAP)."""
    request = bytearray(_HEAD.pack(0, 2**64 - 1, _SYNC, 0, _EXTENTS, 0)) + bytearray(_EXTENT.size * _EXTENTS)
    fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, request)
    mapped = _HEAD.unpack_from(request)[3]
    assert mapped < _EXTENTS, "more extents than were asked for"
    extents = [_EXTENT.unpack_from(request, _HEAD.size + number * _EXTENT.size) for number in range(mapped)]
    return sum(extent[2] for extent in extents if extent[5] & _SHARED)
