"""Reading a model file of the user's from end to end: its digest, its size, and the state in which it was read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UsageError
from shared.store.records import StatIdentity

_BUFFER_BYTES = 4 * 1024 * 1024
_TENTH_OF_A_GIGABYTE = 10**8
_GGUF_MAGIC = b"GGUF"
# A FIFO must not wait for a writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

OnBytes = Callable[[int, int], None]
"""Called with the bytes done so far and the whole size, at the beginning and after every buffer."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A model file that was read from end to end: its name, digest (hex), size in bytes, and state before that."""

    name: str
    sha256: str
    size_bytes: int
    looks_like_gguf: bool
    identity: StatIdentity

    @property
    def required_disk_space_gb(self) -> float:
        """The size, rounded up to a tenth of a GB (10^9 bytes)."""
        return -(-self.size_bytes // _TENTH_OF_A_GIGABYTE) / 10


def hash_file(path: Path, on_bytes: OnBytes) -> HashedFile:
    """Hash a model file; what `on_bytes` raises ends it.

    Raises UsageError when it cannot be read, is empty, no regular file, or changes meanwhile.
    """
    try:
        with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode) or before.st_size == 0:
                raise UsageError(f"{path} is empty or no regular file", next_step="name one whole *.gguf file")
            digest, head, done = hashlib.sha256(), b"", 0
            buffer = memoryview(bytearray(_BUFFER_BYTES))
            on_bytes(0, before.st_size)
            while count := file.readinto(buffer):
                head = head or bytes(buffer[: len(_GGUF_MAGIC)])
                digest.update(buffer[:count])
                done += count
                on_bytes(done, before.st_size)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", next_step="check the path and the rights of the file"
        ) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UsageError(f"{path} changed while it was read", next_step="try again once nothing writes to it")
    return HashedFile(
        path.name, digest.hexdigest(), before.st_size, head == _GGUF_MAGIC, identity=StatIdentity.of(before)
    )
