"""Step 5: why bytes were deleted, at most twenty records a digest and one a generation. The bytes are not kept."""

from __future__ import annotations

from shared.store.atomic import fsync_dir
from shared.store.layout import StoreLayout
from shared.store.records import RejectedRecord

MAX_RECORDS = 20
_NUMBERS = range(1, MAX_RECORDS + 1)


def write_rejected(layout: StoreLayout, record: RejectedRecord) -> bool:
    """Write a record into a free place, or over the oldest; return whether it is new. Raises OSError."""
    present = read_rejected(layout, record.sha256)
    if any(known.generation == record.generation for known in present.values()):
        return False
    free = [number for number in _NUMBERS if number not in present]
    number = free[0] if free else min(present, key=lambda taken: present[taken].rejected_at)
    record.write(layout.rejected_file(record.sha256, number))
    return True


def read_rejected(layout: StoreLayout, digest: str) -> dict[int, RejectedRecord]:
    """Return the records of a digest by their number; what cannot be read is not there."""
    numbered = {number: RejectedRecord.read(layout.rejected_file(digest, number)) for number in _NUMBERS}
    return {number: record for number, record in numbered.items() if record is not None}


def remove_rejected(layout: StoreLayout, digest: str) -> int:
    """Remove the records of a digest that is not pinned any more; return how many there were. Raises OSError."""
    paths = list(layout.rejected.glob(f"{digest}-*.json"))
    for path in paths:
        path.unlink(missing_ok=True)
    fsync_dir(layout.rejected)
    return len(paths)
