"""In a container store: what root made in incoming ends as the downloader's own, as the table of owners wants it.

The directory belongs to a service that nobody trusts, so nothing is followed: everything goes through descriptors, and
only a regular file with one link changes its owner.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shared.errors import StoreError
from shared.store.atomic import HOSTILE_FLAGS, open_dir
from shared.store.layout import DOWNLOADER_UID, INCOMING_FILE_MODE, INCOMING_MODE, STORE_GID, StoreLayout


@contextmanager
def handed_over(layout: StoreLayout, digest: str) -> Iterator[None]:
    """Give `incoming/<digest>` and all in it to the downloader at the end, however that comes. Raises StoreError."""
    try:
        yield
    finally:
        hand_over(layout, digest)


def hand_over(layout: StoreLayout, digest: str) -> None:
    """Set owners and modes of `incoming/<digest>`, only where they differ. Raises StoreError."""
    try:
        with open_dir(layout.incoming) as incoming, open_dir(digest, dir_fd=incoming) as directory:
            _give(directory, INCOMING_MODE)
            for name in os.listdir(directory):  # noqa: PTH208 - a descriptor
                with suppress(FileNotFoundError):  # a service is at work here, too
                    _give_file(name, directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"cannot hand {layout.incoming_dir(digest)} over to the downloader: {error.strerror}",
            next_step="run this in the container of init, as root with CHOWN and FOWNER",
        ) from error


def _give_file(name: str, directory: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return
    descriptor = os.open(name, HOSTILE_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            _give(descriptor, INCOMING_FILE_MODE)
    finally:
        os.close(descriptor)


def _give(descriptor: int, mode: int) -> None:
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (DOWNLOADER_UID, STORE_GID):
        os.fchown(descriptor, DOWNLOADER_UID, STORE_GID)
        status = os.fstat(descriptor)  # chown may have cleared the setgid bit
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)
