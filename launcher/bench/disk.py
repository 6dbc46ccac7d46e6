"""The disk under the store: an unnamed file is written and synced, then read past the page cache.

The file has no name (O_TMPFILE, or a name that is taken away before the first byte), so that nothing is left behind
even by a kill. Its bytes are random: a file system that compresses gets no present.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.bench.figures import Figure, Measured, Missing
from launcher.doctor.judges.store import IN_MEMORY
from launcher.doctor.probes.store import existing, file_system_of
from launcher.interrupts import StoppedError

ROUNDS = 3
MOST_BYTES = 256 * 1024**2
LEAST_BYTES = 32 * 1024**2
# One part in so many of what is free.
SHARE = 10
ROUND_SECONDS = 3.0
_BUFFER = 4 * 1024**2

Say = Callable[[str, int, int], None]


def measure_disk(root: Path, say: Say, stop: threading.Event) -> Measured:
    """Return what writing with fsync and reading give; raises StoppedError."""
    place = existing(root)
    kind = file_system_of(place)
    if kind in IN_MEMORY:
        return [Missing("disk", f"{place} is in memory ({kind}): there is no disk to measure")]
    status = os.statvfs(place)
    size = min(MOST_BYTES, status.f_bavail * status.f_frsize // SHARE) // _BUFFER * _BUFFER
    if size < LEAST_BYTES:
        return [Missing("disk", f"too little room in {place}", "r3mes gc")]
    try:
        with _unnamed(place) as descriptor:
            return _measure(descriptor, kind, size, say, stop)
    except OSError as error:
        return [Missing("disk", f"{place}: {error.strerror}", "r3mes doctor")]


def _measure(descriptor: int, kind: str, size: int, say: Say, stop: threading.Event) -> Measured:
    buffer = secrets.token_bytes(_BUFFER)
    write_round(descriptor, buffer, LEAST_BYTES, stop)
    rates, written = [], size
    for number in range(ROUNDS):
        say("disk write", number, ROUNDS)
        written, seconds = write_round(descriptor, buffer, size, stop)
        rates.append(written / seconds / 1e6)
    say("disk write", ROUNDS, ROUNDS)
    what = f"{written // 1024**2} MiB on {kind or 'this file system'}"
    figures: list[Figure | Missing] = [
        Figure("disk write", "MB/s", tuple(rates), f"{what}, fsync counted; warm-up: {LEAST_BYTES // 1024**2} MiB")
    ]
    reads = read_rounds(descriptor, written, say, stop)
    if reads:
        how = f"{what}, past the page cache (O_DIRECT); what lies below this host may cache all the same"
        figures.append(Figure("disk read", "MB/s", tuple(reads), f"{how}; no warm-up"))
    else:
        figures.append(Missing("disk read", f"{kind} has no reads past the page cache, and a cached read is no disk"))
    return figures


def write_round(descriptor: int, buffer: bytes, size: int, stop: threading.Event) -> tuple[int, float]:
    """Write from the beginning and sync; return the bytes (fewer than `size` on a slow disk) and the seconds."""
    os.ftruncate(descriptor, 0)
    began, done = time.monotonic(), 0
    while done < size and (done < LEAST_BYTES or time.monotonic() - began < ROUND_SECONDS):
        if stop.is_set():
            raise StoppedError
        done += os.pwrite(descriptor, buffer, done)
    os.fsync(descriptor)
    return done, time.monotonic() - began


def read_rounds(descriptor: int, size: int, say: Say, stop: threading.Event) -> list[float]:
    """Return the rates of reads that cannot come out of the page cache, none where there are no such reads."""
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return []
    rates = []
    try:
        view = memoryview(mmap.mmap(-1, _BUFFER))  # anonymous memory is aligned to pages, as O_DIRECT wants it
        for number in range(ROUNDS):
            say("disk read", number, ROUNDS)
            if not fcntl.fcntl(direct, fcntl.F_GETFL) & os.O_DIRECT:
                return []
            done, seconds = _read_round(direct, view, size, stop)
            rates.append(done / seconds / 1e6)
        say("disk read", ROUNDS, ROUNDS)
    except OSError:
        return []
    finally:
        os.close(direct)
    return rates


def _read_round(descriptor: int, view: memoryview, size: int, stop: threading.Event) -> tuple[int, float]:
    began, done = time.monotonic(), 0
    while done < size and (not done or time.monotonic() - began < ROUND_SECONDS):
        if stop.is_set():
            raise StoppedError
        count = os.preadv(descriptor, [view], done)
        if not count:
            break
        done += count
    return done, max(time.monotonic() - began, 1e-9)


@contextmanager
def _unnamed(place: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(place, flags | os.O_TMPFILE, 0o600)
    except OSError:
        name = place / f".r3mes-bench-{secrets.token_hex(8)}"
        descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600)
        name.unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)
