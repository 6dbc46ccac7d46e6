"""What a store is in the middle of, read from the disk alone: to tell what a kill has hit, and to choose when."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shared.store.layout import StoreLayout
from shared.store.records import Journal


class Moment(enum.StrEnum):
    """How far one model is on its way."""

    IDLE = "idle"  # verified, or not begun
    DOWNLOADING = "downloading"  # bytes are missing
    VERIFYING = "verifying"  # complete, and not judged
    PROMOTING = "promoting"  # between the verified name, or a record, and the end of incoming and the receipt


def moments_of(layout: StoreLayout, digests: Iterable[str]) -> frozenset[Moment]:
    """Return everything that goes on with these models; IDLE only if nothing else does."""
    moments = frozenset(_one(layout, digest) for digest in digests) - {Moment.IDLE}
    return moments or frozenset({Moment.IDLE})


def is_journal_replaced(layout: StoreLayout, digests: Iterable[str]) -> bool:
    """Tell whether a journal is just being replaced."""
    return any(_has(layout.incoming_dir(digest), ".journal.json.") for digest in digests)


def _one(layout: StoreLayout, digest: str) -> Moment:
    has_data = layout.data(digest).exists()
    is_claimed = not has_data and _has(layout.incoming_dir(digest), ".claimed-")
    if layout.verified_dir(digest).exists():
        is_done = layout.receipt(digest).exists() and not has_data and not is_claimed
        return Moment.IDLE if is_done else Moment.PROMOTING
    if is_claimed:
        return Moment.PROMOTING
    journal = Journal.read(layout.journal(digest))
    if journal is None:
        return Moment.DOWNLOADING if has_data else Moment.IDLE
    return Moment.VERIFYING if journal.complete else Moment.DOWNLOADING


def _has(directory: Path, prefix: str) -> bool:
    with suppress(OSError):  # it may go at any time
        return any(path.name.startswith(prefix) for path in directory.iterdir())
    return False
