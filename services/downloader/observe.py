"""What the store shows of a pin. Reading only; every file of another service is hostile.

The order matters, since the verifier works meanwhile: incoming first, then rejected, then verified. What was gone from
incoming when we looked has by then left its trace in one of the other two.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from services.downloader.reconcile import IncomingData, Mismatch
from services.downloader.transfer.incoming import fitting_journal
from services.downloader.transfer.ranges import covered
from services.downloader.transfer.space import Mode, Room, reservation
from shared.genesis import ModelPin
from shared.store.atomic import temporaries
from shared.store.layout import StoreLayout
from shared.store.records import Receipt, RejectedRecord
from shared.store.verified import has_right_receipt

# The verifier keeps at most this many records of a digest, numbered from 1.
_MAX_RECORDS = 20
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class StoreView:
    """One pin in the store: its incoming data, its rejected records, its verified file.

    `unproven`: there is a verified file, of this name or a former one, and no right receipt for it.
    """

    data: IncomingData | None
    rejected: tuple[RejectedRecord, ...]
    receipt: Receipt | None
    unproven: bool
    leftovers: bool


def view_store(layout: StoreLayout, pin: ModelPin) -> StoreView:
    """Look at one pin; raises nothing."""
    data = _incoming(layout, pin)
    leftovers = _has_leftovers(layout, pin.sha256)
    rejected = read_rejected(layout, pin.sha256)
    receipt = has_right_receipt(layout, pin.sha256, pin.file_name)
    unproven = receipt is None and _has_verified_name(layout, pin.sha256)
    return StoreView(data, rejected, receipt, unproven, leftovers)


def _has_leftovers(layout: StoreLayout, digest: str) -> bool:
    """Tell whether incoming holds bytes, their journal, a lease, or what a kill left of one."""
    is_there = layout.data(digest).is_file() or layout.journal(digest).exists() or layout.lease(digest).exists()
    return is_there or any(temporaries(layout.incoming_dir(digest)))


def read_rejected(layout: StoreLayout, digest: str) -> tuple[RejectedRecord, ...]:
    """Return the records of a digest."""
    records = (RejectedRecord.read(layout.rejected_file(digest, n)) for n in range(1, _MAX_RECORDS + 1))
    return tuple(record for record in records if record is not None and record.sha256 == digest)


def counting_mismatches(
    rejected: tuple[RejectedRecord, ...], geneses: frozenset[str], forgiven_before: float
) -> tuple[Mismatch, ...]:
    """Return the wrong bytes that count: under a present genesis, and not forgiven."""
    return tuple(
        Mismatch(record.source, record.found)
        for record in rejected
        if record.reason == "mismatch" and record.genesis_sha256 in geneses and record.rejected_at >= forgiven_before
    )


def measure_room(layout: StoreLayout, digest: str, others: tuple[ModelPin, ...], copies: dict[str, int]) -> Room:
    """Measure the file system for `digest`; `others` are the pins whose downloads may still take room.

    `copies` are the sizes of the verifier's private copies as far as they are known (digest → bytes).
    """
    status = os.statvfs(layout.incoming)  # in a container the root is no mount, but the container's own file system
    return Room(
        free=status.f_bavail * status.f_frsize,
        own_data=_allocated(layout.data(digest)),
        own_copy=_copy_bytes(layout, digest, copies),
        reserved=sum(_reserved(layout, other, copies) for other in others if other.sha256 != digest),
    )


def _allocated(path: Path) -> int:
    """Bytes that a file occupies on disk."""
    try:
        return path.lstat().st_blocks * _BLOCK_BYTES
    except OSError:
        return 0


def _copy_bytes(layout: StoreLayout, digest: str, copies: dict[str, int]) -> int:
    """Bytes of the verifier's copy: it tells of one without a name, a low-space partial can be seen."""
    return copies.get(digest, 0) + _allocated(layout.partial_file(digest))


def _reserved(layout: StoreLayout, pin: ModelPin, copies: dict[str, int]) -> int:
    journal = fitting_journal(layout, pin)
    if journal is None:
        return 0
    data, copy = _allocated(layout.data(pin.sha256)), _copy_bytes(layout, pin.sha256, copies)
    return reservation(journal.size, data, copy, Mode(journal.mode))


def _has_verified_name(layout: StoreLayout, digest: str) -> bool:
    """Tell whether the digest has a verified file of any name: a new `file_name` is the verifier's to settle."""
    try:
        return any(path.suffix == ".gguf" for path in layout.verified_dir(digest).iterdir())
    except OSError:
        return False


def _incoming(layout: StoreLayout, pin: ModelPin) -> IncomingData | None:
    journal = fitting_journal(layout, pin)
    if journal is None:
        return None
    return IncomingData(journal.generation, journal.source, journal.size, covered(journal.ranges), journal.complete)
