"""Power cuts: every image that a cut may leave while a store is worked on, mounted one after another and judged.

The store lies on ext4 on recorded disks (`write_log`). A cut after any of their writes leaves what was flushed before
and, of what came since, all (that is what a copy of the backing file at that moment shows), nothing, or any part:
a disk keeps its cache in no order. Mounting an image replays the journal, as a power-up does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from services.verifier import linux
from shared.store.layout import StoreLayout
from tests.support.programs import need
from tests.support.small_disk import small_disk
from tests.support.verifier_store import Store
from tests.support.write_log import Recording, recorded

IMAGE_BYTES = 32 * 1024 * 1024
WORK_BYTES = 1024 * 1024 * 1024
BLOCK_BYTES = 4096  # what a disk writes whole or not at all, and what ext4 counts in
BUFFER_BYTES = 1024 * 1024
ZEROES = bytes(BLOCK_BYTES)
NOTHING, HALF = 0.25, 0.5
Block = tuple[int, bytes]
T = TypeVar("T")


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@contextmanager
def room_for_disks(path: Path) -> Iterator[Path]:
    """A directory in memory for images and logs, where images can be mounted; else the test is skipped."""
    need("mkfs.ext4", "mount", "umount", "sync")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        pytest.skip("only root mounts images, with /dev/fuse and /dev/loop-control")
    with small_disk(path, WORK_BYTES) as room:
        yield room


@dataclass(frozen=True)
class PowerCuts:
    """What was written while a store was worked on, from `since` to `until`, to disks that began as `bases`."""

    room: Path
    bases: list[Path]
    recording: Recording
    since: int
    until: int

    def images(self, seed: int = 0) -> Iterator[list[Path]]:
        """Yield the disks as cuts may leave them, the same files each time: use them before the next.

        After each write or flush: with all that was written, and with a random part of what was not flushed.
        """
        chance = random.Random(seed)  # noqa: S311 - which writes are lost
        durable = [_read_blocks(base) for base in self.bases]
        pending: list[list[Block]] = [[] for _ in durable]
        for position, record in self.recording.records():
            if record.content is None:
                durable[record.disk].update(pending[record.disk])
                pending[record.disk].clear()
            else:
                pending[record.disk] += _blocks(record.content, record.offset)
            if position > self.until:
                return
            if position <= self.since:
                continue
            yield self._written(durable, pending)
            if any(pending):
                yield self._written(durable, [_some(blocks, chance) for blocks in pending])

    def judge(self, check: Callable[[Store], T], seed: int = 0) -> list[T]:
        """Mount each image, and return what `check` says of the store on it. Whatever it changes is thrown away."""
        said = []
        for images in self.images(seed):
            with mounted_store(images, self.room / "after") as root:
                said.append(check(Store(StoreLayout(root))))
        return said

    def _written(self, durable: list[dict[int, bytes]], pending: list[list[Block]]) -> list[Path]:
        images = []
        for number, (content, blocks) in enumerate(zip(durable, pending, strict=True)):
            images.append(self.room / f"after{number}.img")
            _write_image(images[-1], content | dict(blocks))
        return images


def record_power_cuts(
    room: Path, prepare: Callable[[Path], T], act: Callable[[T], object], *, disks: int = 1
) -> PowerCuts:
    """Prepare a store at a path, make that durable, and record what `act` writes. `disks` 2: incoming has its own."""
    bases = [room / f"base{number}.img" for number in range(disks)]
    for base in bases:
        make_image(base)
    log = room / "writes.log"
    log.unlink(missing_ok=True)
    with recorded(bases, log) as recording, mounted_store(recording.disks, room / "before") as root:
        prepared = prepare(root)
        subprocess.run(["sync", "--file-system", root, root / "incoming"], check=True)
        since = recording.position()
        act(prepared)
        until = recording.position()
    return PowerCuts(room, bases, recording, since, until)


@contextmanager
def mounted_store(disks: Sequence[Path], at: Path) -> Iterator[Path]:
    """Mount one disk for a whole store, or one for the store and one for its incoming; yield the store's root."""
    with mounted(disks[0], at):
        root = at / "models"
        if len(disks) == 1:
            yield root
            return
        incoming = root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        with mounted(disks[1], incoming):
            yield root


def leave_out_fsync(monkeypatch: pytest.MonkeyPatch, of: Callable[[Path], bool]) -> None:
    """Let fsync do nothing for what lies at such paths; a file without a name has one that begins with #."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not of(Path(os.readlink(f"/proc/self/fd/{descriptor}"))):  # noqa: PTH115
            real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def write_through_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without O_DIRECT, and a kernel that does not begin to write before it has to."""
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(linux._libc, "sync_file_range", lambda *_arguments: 0)


def refuse_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without unnamed files."""
    real = os.open

    def refuse(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)


def make_image(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # Nothing is left for later: what is recorded is the store's.
    later = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-E", later, str(image)], check=True)


def _blocks(content: bytes, offset: int) -> list[Block]:
    """Return the blocks of a write; those of zeroes as well, unlike `_read_blocks`."""
    assert offset % BLOCK_BYTES == len(content) % BLOCK_BYTES == 0, "ext4 writes whole blocks"
    return [
        ((offset + at) // BLOCK_BYTES, content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES)
    ]


def _some(blocks: list[Block], chance: random.Random) -> list[Block]:
    """Return none of these blocks, or about half of them."""
    if chance.random() < NOTHING:
        return []
    return [block for block in blocks if chance.random() < HALF]


def _read_blocks(image: Path) -> dict[int, bytes]:
    return {number: block for number, block in _blocks(image.read_bytes(), 0) if block != ZEROES}


def _write_image(image: Path, content: dict[int, bytes]) -> None:
    """Write an image anew; what lies side by side at once, and the rest as holes: most of an image is zeroes."""
    with image.open("wb", buffering=BUFFER_BYTES) as file:
        file.truncate(IMAGE_BYTES)
        following = -1
        for number in sorted(content):
            if number != following:
                file.seek(number * BLOCK_BYTES)
            file.write(content[number])
            following = number + 1
