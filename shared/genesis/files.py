"""Reading a genesis file: bounded, regular files only, every failure a GenesisError that names the file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from shared.errors import GenesisError
from shared.genesis.chain import MAX_PLAIN_BYTES
from shared.genesis.parse import MAX_GENESIS_BYTES, parse_genesis_stream
from shared.genesis.types import Genesis


def open_genesis_descriptor(path: Path) -> int:
    """Return a descriptor of the file, which the caller closes.

    Raises GenesisError when there is no such file, it cannot be opened, or it is not a regular file.
    """
    try:
        # O_NONBLOCK: a named pipe in the file's place must not hang a start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise missing_genesis(path) from error
    except OSError as error:
        raise unreadable_genesis(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise unreadable_genesis(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    raise _error(path, "something that is not a regular file")


def read_plain_bytes(path: Path) -> bytes:
    """Return the file's bytes, at most one more than a plain form may have; raises GenesisError."""
    with open(open_genesis_descriptor(path), "rb") as file:
        try:
            return file.read(MAX_PLAIN_BYTES + 1)
        except OSError as error:
            raise unreadable_genesis(path, error) from error


def read_genesis_file(path: Path) -> Genesis:
    """Read and parse in bounded memory; raises GenesisError."""
    with open(open_genesis_descriptor(path), "rb") as file:
        try:
            return parse_genesis_stream(file, file=str(path))
        except OSError as error:
            raise unreadable_genesis(path, error) from error


def missing_genesis(path: Path) -> GenesisError:
    """Return the error of a genesis file that is not there."""
    return _error(path, "no such file")


def unreadable_genesis(path: Path, error: OSError) -> GenesisError:
    """Return the error of a genesis file that cannot be read."""
    return _error(path, f"a file that cannot be read: {error.strerror}")


def too_long_genesis(path: Path) -> GenesisError:
    """Return the error of a file with more bytes than any form of a genesis may have."""
    return GenesisError(
        file=str(path),
        field="",
        found=f"more than {MAX_GENESIS_BYTES} bytes",
        wanted=f"at most {MAX_GENESIS_BYTES} bytes",
        next_step="check the path (R3MES_GENESIS)",
    )


def _error(path: Path, found: str) -> GenesisError:
    return GenesisError(
        file=str(path),
        field="",
        found=found,
        wanted="a genesis file",
        next_step="check the path (R3MES_GENESIS; the default is genesis/genesis.json in the project's folder)",
    )
