"""Removing a verified model that nobody wants any more: receipt, file, fsync, note, directory.

A kill in between leaves a file without a receipt, which is hashed again, or a directory without a file, which the next
start sweeps. A miner that serves the file notices that its name is gone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from services.verifier.existing import RECEIPT, SUFFIX
from shared.store.atomic import fsync_dir, open_dir, sweep_temporaries
from shared.store.layout import StoreLayout

_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files of models were removed, and the bytes that they occupied on the disk."""

    files: int = 0
    bytes: int = 0


def remove_verified(layout: StoreLayout, digest: str) -> Removed:
    """Remove all that is ours under `verified/<digest>`; what somebody else put there stays. Raises OSError.

    The caller knows that the digest is not pinned, or that there is no file.
    """
    files = freed = 0
    path = layout.verified_dir(digest)
    try:
        with open_dir(path) as directory:
            names = os.listdir(directory)  # noqa: PTH208 - a descriptor
            for name in (RECEIPT, *(name for name in names if name.endswith(SUFFIX))):
                with suppress(FileNotFoundError):
                    blocks = os.stat(name, dir_fd=directory, follow_symlinks=False).st_blocks
                    os.unlink(name, dir_fd=directory)
                    if name != RECEIPT:
                        files, freed = files + 1, freed + blocks * _BLOCK_BYTES
            os.fsync(directory)
            with suppress(FileNotFoundError):
                os.unlink(layout.unpinned_note(digest).name, dir_fd=directory)
            sweep_temporaries(path)
    except FileNotFoundError:
        return Removed()
    with suppress(OSError):  # not empty: what else is there is not ours
        path.rmdir()
    fsync_dir(layout.verified)
    return Removed(files, freed)
