"""Reading a genesis file: bounded, regular files only, every failure a GenesisError that names the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shared.errors import GenesisError
from shared.genesis.parse import MAX_GENESIS_BYTES, parse_genesis_stream
from shared.genesis.types import Genesis


def read_genesis_bytes(path: Path) -> bytes:
    """Return the file's bytes, at most one more than the limit (so that the parser sees that it is too long).

    Only for whoever writes exactly these bytes elsewhere: a chain's genesis may have 256 MiB.
    Raises GenesisError when there is no such file, it cannot be read, or it is not a regular file.
    """
    with _opened(path) as file:
        return file.read(MAX_GENESIS_BYTES + 1)


def read_genesis_file(path: Path) -> Genesis:
    """Read and parse in bounded memory; raises GenesisError."""
    with _opened(path) as file:
        return parse_genesis_stream(file, file=str(path))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # O_NONBLOCK: a named pipe in the file's place must not hang a start.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _error(path, "something that is not a regular file")
            yield file
    except FileNotFoundError as error:
        raise missing_genesis(path) from error
    except OSError as error:
        raise _error(path, f"a file that cannot be read: {error.strerror}") from error


def missing_genesis(path: Path) -> GenesisError:
    """Return the error of a genesis file that is not there."""
    return _error(path, "no such file")


def _error(path: Path, found: str) -> GenesisError:
    return GenesisError(
        file=str(path),
        field="",
        found=found,
        wanted="a genesis file",
        next_step="check the path (R3MES_GENESIS; the default is genesis/genesis.json in the project's folder)",
    )
