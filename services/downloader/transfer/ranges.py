"""Sets of byte ranges. Pure.

A set of ranges is a sorted tuple of half-open `[start, end)` pairs that neither touch nor overlap.
"""

from __future__ import annotations

Range = tuple[int, int]
Ranges = tuple[Range, ...]


def add_range(ranges: Ranges, start: int, end: int) -> Ranges:
    """Return `ranges` with `[start, end)` merged in."""
    if start >= end:
        return ranges
    before = tuple(r for r in ranges if r[1] < start)
    after = tuple(r for r in ranges if r[0] > end)
    touching = ranges[len(before) : len(ranges) - len(after)]
    merged = (min([start, *(r[0] for r in touching)]), max([end, *(r[1] for r in touching)]))
    return (*before, merged, *after)


def covered(ranges: Ranges) -> int:
    """Count the bytes in `ranges`."""
    return sum(end - start for start, end in ranges)


def prefix(ranges: Ranges) -> int:
    """Count the contiguous bytes from 0."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


def first_gap(ranges: Ranges, size: int) -> Range | None:
    """Return the first missing range of a file of `size`; None when all of it is there."""
    start = prefix(ranges)
    if start >= size:
        return None
    return start, min([size, *(r[0] for r in ranges if r[0] > start)])
