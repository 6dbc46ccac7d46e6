"""What is to be done to the cells of the cache between two decodes, in this order: copies and cuts. Pure values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target` hold the cells of `source` at positions `start` to `end` (exclusive) as well; no cell is added."""

    source: int
    target: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Let `slot` hold nothing from position `start` on; cells that no other slot holds are free."""

    slot: int
    start: int


Move = Copy | Cut
