"""Modes bind everybody but root; here a test that runs as root takes another user's place for a while."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield a directory of a user whom modes bind, as that user: ourselves, or nobody when we are root."""
    home = Path(tempfile.mkdtemp(prefix="r3mes-unprivileged-"))  # pytest's own are closed to others
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.chown(home, NOBODY, NOBODY)
            os.seteuid(NOBODY)  # the effective user alone: its capabilities go with it, and come back
        yield home
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(home)
