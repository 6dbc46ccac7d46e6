"""The demo's own files (lock, logs, Redis's): what the disk refuses becomes an error that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import DiskFullError, StoreError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def writing_below(directory: Path) -> Iterator[None]:
    """Translate what goes wrong: DiskFullError where there is no room, StoreError otherwise."""
    try:
        yield
    except BrokenPipeError:  # nobody listens to what is said: no matter of the disk
        raise
    except OSError as error:
        place = error.filename or directory
        if error.errno in _NO_ROOM:
            raise DiskFullError(f"no room to write {place}", missing_bytes=1, next_step="free some space") from error
        raise StoreError(
            f"cannot write {place}: {error.strerror or error}", next_step="check its owner, or set R3MES_MODELS_DIR"
        ) from error
