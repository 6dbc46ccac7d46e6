"""What may be loaded: the verified file of a pin, with a receipt that is right for exactly that inode.

Finding reads no bytes; whoever loads decides about hashing (design §2, "The miner checks for itself").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.store.atomic import HOSTILE_FLAGS, open_dir
from shared.store.layout import StoreLayout
from shared.store.records import Receipt


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """An open file under `verified/<digest>/`, its `fstat` and its receipt, if the receipt is right."""

    descriptor: int
    status: os.stat_result
    receipt: Receipt | None


@contextmanager
def open_verified(layout: StoreLayout, digest: str, file_name: str) -> Iterator[VerifiedFile | None]:
    """Yield the verified file of a digest, or None when there is no regular file of that name.

    The descriptor is closed on exit. `receipt` is None when it is absent or does not agree with `fstat`.
    """
    try:
        with open_dir(layout.verified_dir(digest)) as directory:
            descriptor = os.open(file_name, HOSTILE_FLAGS, dir_fd=directory)
            receipt = Receipt.read("receipt.json", dir_fd=directory)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            yield None
            return
        right = receipt is not None and receipt.file_name == file_name and receipt.is_right(digest, status)
        yield VerifiedFile(descriptor, status, receipt if right else None)
    finally:
        os.close(descriptor)


def has_right_receipt(layout: StoreLayout, digest: str, file_name: str) -> Receipt | None:
    """Return the receipt of the verified file when both are there and agree, else None."""
    with open_verified(layout, digest, file_name) as verified:
        return None if verified is None else verified.receipt
