"""What an error of the store's directories means for a person."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DiskFullError, R3mesError
from shared.store.layout import StoreLayout

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def store_errors(layout: StoreLayout, failed: str) -> Iterator[None]:
    """Turn an OSError into an error that says what `failed`: DiskFullError, or R3mesError about disk and owner."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"{failed}: {error}", missing_bytes=0, next_step="free some space, then again"
            ) from error
        place = shlex.quote(str(layout.root))
        raise R3mesError(f"{failed}: {error}", next_step=f"check the disk and the owner of {place}") from error
