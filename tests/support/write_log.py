"""Disks that remember every write and every flush, in order: what a power cut may leave follows from that.

A small FUSE server in a process of its own holds each disk in memory and shows it as one file, for a loop device to sit
on. It appends a record to a log before it answers, so whatever a file system knows to be written is in the log. The
protocol is that of `linux/fuse.h`, 7.31; the mount's root is a regular file, so there is no name to look up.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.crash_child import context

SECONDS = 20.0

_RECORD = struct.Struct("<BBQI")  # flush or write, number of the disk, offset, length; the bytes follow
_FLUSH, _WRITE = 0, 1

_MAX_WRITE = 1024 * 1024
_GETATTR, _SETATTR, _OPEN, _READ, _WRITE_OP, _RELEASE, _FSYNC, _INIT = 3, 4, 14, 15, 16, 18, 20, 26
_UNANSWERED = frozenset({2, 36, 42})  # FORGET, INTERRUPT, BATCH_FORGET
_HEADER = struct.Struct("IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_ANSWER = struct.Struct("IiQ")  # length, minus errno, unique
_TRANSFER = struct.Struct("QQI")  # handle, offset, size; of READ and WRITE
_WRITE_IN_BYTES = 40
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_MNT_DETACH = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One write of a disk, or a flush of it: `content` is None."""

    disk: int
    offset: int
    content: bytes | None


@dataclass(frozen=True)
class Recording:
    """What a number of disks were told, while they are mounted and after."""

    disks: list[Path]
    log: Path

    def position(self) -> int:
        """How long the log is now; it may be in the middle of a record."""
        return self.log.stat().st_size

    def records(self) -> list[tuple[int, Record]]:
        """Return every record with the position after it."""
        content, at, found = self.log.read_bytes(), 0, []
        while at < len(content):
            kind, disk, offset, length = _RECORD.unpack_from(content, at)
            at += _RECORD.size
            found.append((at + length, Record(disk, offset, content[at : at + length] if kind == _WRITE else None)))
            at += length
        return found


@contextmanager
def recorded(images: Sequence[Path], log: Path) -> Iterator[Recording]:
    """Show each image as a file `<image>.disk` that records; the images stay as they are. Only for root."""
    disks = [image.with_suffix(".disk") for image in images]
    for disk in disks:
        disk.touch()
    here, there = context.Pipe()
    server = context.Process(target=_serve, args=(list(images), disks, log, there), daemon=True)
    server.start()
    there.close()
    try:
        assert here.poll(SECONDS), "the server of the disks did not start"
        assert here.recv() == "serving"
        yield Recording(disks, log)
    finally:
        for disk in disks:
            _libc().umount2(os.fsencode(disk), _MNT_DETACH)
        server.join(SECONDS)
        if server.exitcode is None:
            server.kill()
    assert server.exitcode == 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _serve(images: list[Path], disks: list[Path], log: Path, ready: Connection) -> None:
    log_descriptor = os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    served = [
        _Disk(number, image, disk, log_descriptor)
        for number, (image, disk) in enumerate(zip(images, disks, strict=True))
    ]
    ready.send("serving")
    mounted = {disk.descriptor: disk for disk in served}
    poll = select.poll()
    for descriptor in mounted:
        poll.register(descriptor, select.POLLIN)
    while mounted:
        for descriptor, _events in poll.poll():
            if not mounted[descriptor].answer_one():
                poll.unregister(descriptor)
                del mounted[descriptor]


class _Disk:
    """One disk, mounted; answers what the kernel asks of it."""

    def __init__(self, number: int, image: Path, disk: Path, log: int) -> None:
        self._number = number
        self._content = bytearray(image.read_bytes())
        self._log = log
        self.descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.descriptor},rootmode={stat.S_IFREG:o},user_id={os.getuid()},group_id={os.getgid()}"
        if _libc().mount(b"recorded", os.fsencode(disk), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount", str(disk))

    def answer_one(self) -> bool:
        """Answer one request; return whether the disk is still mounted."""
        try:
            request = os.read(self.descriptor, _MAX_WRITE + 64 * 1024)
            length, opcode, unique, *_rest = _HEADER.unpack_from(request)
            if opcode not in _UNANSWERED:
                answer = self._answer(opcode, memoryview(request)[_HEADER.size : length])
                refused = -errno.ENOSYS if answer is None else 0
                content = answer or b""
                os.write(self.descriptor, _ANSWER.pack(_ANSWER.size + len(content), refused, unique) + content)
        except OSError as error:
            if error.errno not in {errno.EINTR, errno.ENOENT, errno.EAGAIN, errno.ENODEV}:
                raise
            return error.errno != errno.ENODEV  # else nobody waits for this answer any more
        return True

    def _answer(self, opcode: int, body: memoryview) -> bytes | None:
        answer = {
            _INIT: self._begin,
            _GETATTR: self._attributes,
            _SETATTR: self._attributes,
            _OPEN: lambda _body: struct.pack("QII", 1, 0, 0),
            _READ: self._read,
            _WRITE_OP: self._write,
            _FSYNC: self._flush,
            _RELEASE: lambda _body: b"",
        }.get(opcode)
        return None if answer is None else answer(body)

    def _begin(self, _body: memoryview) -> bytes:
        flags, pages = _BIG_WRITES | _MAX_PAGES, _MAX_WRITE // 4096
        return struct.pack("IIIIHHIIHHII6I", 7, 31, 0, flags, 16, 12, _MAX_WRITE, 1, pages, *[0] * 9)

    def _attributes(self, _body: memoryview) -> bytes:
        size = len(self._content)
        valid_seconds, times, times_ns = 3600, [0] * 3, [0] * 3
        long = struct.pack("QQ6Q", valid_seconds, 0, 1, size, size // 512, *times)
        return long + struct.pack("10I", *times_ns, stat.S_IFREG | 0o600, 1, os.getuid(), os.getgid(), 0, 4096, 0)

    def _read(self, body: memoryview) -> bytes:
        _handle, offset, size = _TRANSFER.unpack_from(body)
        return bytes(self._content[offset : offset + size])

    def _write(self, body: memoryview) -> bytes:
        _handle, offset, size = _TRANSFER.unpack_from(body)
        content = body[_WRITE_IN_BYTES : _WRITE_IN_BYTES + size]
        self._content[offset : offset + size] = content
        self._record(_WRITE, offset, content)
        return struct.pack("II", size, 0)

    def _flush(self, body: memoryview) -> bytes:
        self._record(_FLUSH, 0, body[:0])
        return b""

    def _record(self, kind: int, offset: int, content: memoryview) -> None:
        os.writev(self._log, [_RECORD.pack(kind, self._number, offset, len(content)), content])
