"""One genesis file, opened once: what was hashed is what is parsed, shown, and written elsewhere.

A plain form's 64 KiB are held; what is longer, up to 256 MiB, never is: each reading goes from its beginning to its end
by the same descriptor, whatever the name leads to by then, and one whose digest is not the first one's raises.
Order: `open_genesis` (the operator's file) or `find_genesis` (one in `trust/`), which hash; then `chunks` (for a
signature, for a copy) and `genesis` (which parses when it is first asked for) as they are needed.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from shared.errors import ConfigurationError, GenesisError
from shared.genesis import (
    MAX_GENESIS_BYTES,
    MAX_PLAIN_BYTES,
    Genesis,
    open_genesis_descriptor,
    parse_genesis_stream,
    too_long_genesis,
    unreadable_genesis,
)
from shared.genesis.json_stream import Source
from shared.store.atomic import HOSTILE_FLAGS

CHUNK = 1024 * 1024  # bytes read at once


class GenesisFile:
    """A regular file, held or open for as long as this object lives, and the SHA-256 (hex) of its bytes."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        # Whoever accepts may hold it while a person thinks: it is closed with the last reference, or by `close`.
        self._closer = weakref.finalize(self, os.close, descriptor)
        self._closer.atexit = False
        self._held: bytes | None = None
        digest, size, head = hashlib.sha256(), 0, b""
        for chunk in self._read():
            digest.update(chunk)
            size += len(chunk)
            head += chunk[: MAX_PLAIN_BYTES + 1 - len(head)]
        self.sha256 = digest.hexdigest()
        if size <= MAX_PLAIN_BYTES:
            self._held = head
            self.close()

    def close(self) -> None:
        """Close it now: once it is held, or was refused (whoever shows the error keeps what led to it alive)."""
        self._closer()

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes again, and raise at the end if they are others than those that were hashed.

        Whoever writes them elsewhere must not let them count before the end. Raises ConfigurationError, GenesisError.
        """
        digest = hashlib.sha256()
        for chunk in self._read():
            digest.update(chunk)
            yield chunk
        self._check_same(digest.hexdigest())

    @cached_property
    def genesis(self) -> Genesis:
        """What the bytes that were hashed say; raises GenesisError, ConfigurationError if they are others by now."""
        genesis = parse_genesis_stream(self._reading(), file=str(self.path))
        self._check_same(genesis.sha256)
        return genesis

    def _reading(self) -> Source:
        return _Reading(self.path, self._descriptor) if self._held is None else io.BytesIO(self._held)

    def _read(self) -> Iterator[bytes]:
        reading = self._reading()
        while chunk := reading.read(CHUNK):
            yield chunk

    def _check_same(self, sha256: str) -> None:
        if sha256 != self.sha256:
            raise ConfigurationError(
                f"{self.path} is no longer what was checked: its SHA-256 was {self.sha256}, and now is {sha256}",
                next_step="run the command again once nothing writes to that file",
            )


class _Reading:
    """One reading of a file from its beginning, of at most as many bytes as a genesis may have."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Read on, at most `size` bytes; raises GenesisError."""
        try:
            chunk = os.pread(self._descriptor, size, self._position)
        except OSError as error:
            raise unreadable_genesis(self._path, error) from error
        self._position += len(chunk)
        if self._position > MAX_GENESIS_BYTES:
            raise too_long_genesis(self._path)
        return chunk


def open_genesis(path: Path) -> GenesisFile:
    """Open and hash the operator's file; raises GenesisError: absent, unreadable, too long, no regular file."""
    return GenesisFile(path, open_genesis_descriptor(path))


def find_genesis(path: Path) -> GenesisFile | None:
    """Open and hash a genesis in `trust/`, following no link; None where `open_genesis` would raise."""
    try:
        descriptor = os.open(path, HOSTILE_FLAGS)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    try:
        return GenesisFile(path, descriptor)
    except GenesisError:
        return None
