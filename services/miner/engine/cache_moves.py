"""What is to be done to the cells of the cache between two decodes, in the order of the list. Pure values."""

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


@dataclass(frozen=True, slots=True)
class SwapOut:
    """Keep the keys and values of `slot` at positions `start` to `end` (exclusive) in memory under `key`, too."""

    slot: int
    key: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SwapIn:
    """Let `slot` hold, in new cells, positions `start` to `end` of what lies under `key`, which stays there.

    For a moment the cache needs room for everything that lies under `key`.
    """

    key: int
    slot: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Free what lies in memory under `key`."""

    key: int


@dataclass(frozen=True, slots=True)
class Run:
    """What `slot`, and no other, holds at positions `start` to `end` (exclusive)."""

    slot: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Gather:
    """Move these runs to the first free cells, one after the other, their own counted as free."""

    runs: tuple[Run, ...]


Move = Copy | Cut | SwapOut | SwapIn | Forget | Gather
