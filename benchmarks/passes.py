"""What a pass over a file costs by itself: hashing it, copying it, both in turn; and what the disk takes.

Copies are written as the verifier writes them, reserved and past the page cache where that can be had, and are synced.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.verifier.linux import reserve

MIB = 1024 * 1024
BUFFER_BYTES = 2 * MIB
BLOCK_BYTES = 4096
LAST_BYTES = 128 * MIB
SYNC_EVERY = 8 * MIB  # as the downloader does


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the wall and of CPU."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Cost:
    """Do it, and return what it cost this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def read_through(path: Path, each: Callable[[memoryview, int], object]) -> None:
    """Read a file to its end, giving each buffer and its offset away."""
    source = os.open(path, os.O_RDONLY)
    buffer, done = memoryview(mmap.mmap(-1, BUFFER_BYTES)), 0
    while count := os.preadv(source, [buffer], done):
        each(buffer[:count], done)
        done += count
    os.close(source)


def hash_alone(path: Path) -> None:
    digest = hashlib.sha256()
    read_through(path, lambda buffer, _offset: digest.update(buffer))


def copy_alone(path: Path, directory: Path) -> None:
    target = Target(directory, path.stat().st_size)
    read_through(path, target.write)
    target.finish()


def hash_and_copy(path: Path, directory: Path) -> None:
    """Read, hash and write in turn, with nothing else."""
    target, digest = Target(directory, path.stat().st_size), hashlib.sha256()

    def each(buffer: memoryview, offset: int) -> None:
        digest.update(buffer)
        target.write(buffer, offset)

    read_through(path, each)
    target.finish()


class Target:
    """A file without a name, written past the page cache where the file system has that."""

    def __init__(self, directory: Path, size: int, *, direct: bool = True) -> None:
        self.descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        reserve(self.descriptor, size)
        if direct:
            with suppress(OSError):
                self._set_direct(is_on=True)

    def write(self, buffer: memoryview, offset: int) -> None:
        if len(buffer) % BLOCK_BYTES:
            self._set_direct(is_on=False)
        while buffer:
            count = os.pwrite(self.descriptor, buffer, offset)
            buffer, offset = buffer[count:], offset + count

    def finish(self) -> None:
        os.fsync(self.descriptor)
        os.close(self.descriptor)

    def _set_direct(self, *, is_on: bool) -> None:
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if is_on else flags & ~os.O_DIRECT)


def rate_of_two_copies(content: Path, directory: Path, size: int) -> float:
    """Return at how many bytes per second the disk takes a file twice: once as it arrives, once as it is verified."""

    def arrive() -> None:
        target, unsynced = Target(directory, size, direct=False), 0

        def each(buffer: memoryview, offset: int) -> None:
            nonlocal unsynced
            target.write(buffer, offset)
            unsynced += len(buffer)
            if unsynced >= SYNC_EVERY:
                os.fdatasync(target.descriptor)
                unsynced = 0

        read_through(content, each)
        target.finish()

    def both() -> None:
        beside = threading.Thread(target=copy_alone, args=(content, directory))
        beside.start()
        arrive()
        beside.join()

    return size / timed(both).wall


def fsync_of_the_last(directory: Path) -> float:
    """Return the seconds that one fsync takes after 128 MiB were written through the page cache."""
    target, buffer = Target(directory, LAST_BYTES, direct=False), memoryview(bytearray(os.urandom(BUFFER_BYTES)))
    for offset in range(0, LAST_BYTES, BUFFER_BYTES):
        target.write(buffer, offset)
    return timed(target.finish).wall


def drop_from_cache(path: Path) -> None:
    """Let the page cache forget a file that is durable."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def cached_share(path: Path) -> float | None:
    """Return how much of a file is in the page cache, None where `fincore` is missing."""
    fincore = shutil.which("fincore")
    if fincore is None:
        return None
    command = [fincore, "--bytes", "--noheadings", "--output", "RES", str(path)]
    resident = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return min(1.0, resident / path.stat().st_size)
