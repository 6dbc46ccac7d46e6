"""How much room a download needs and how much is missing. Pure; all numbers are bytes.

Room for two is wanted: the incoming data and the verifier's private copy, and a margin that stays free. Where there is
room for one only, incoming is given up while the copy grows (low-space mode). What this model occupies already counts
as usable, and what other downloads still have to write does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MIN_MARGIN = 256 * 1024 * 1024
MARGIN_PERCENT = 2


@dataclass(frozen=True, slots=True)
class Room:
    """What the file system has free for us, and what is spoken for."""

    free: int
    own_data: int = 0
    own_copy: int = 0
    reserved: int = 0

    @property
    def usable(self) -> int:
        """Bytes that this download may count on."""
        return max(0, self.free + self.own_data + self.own_copy - self.reserved)


def margin(size: int) -> int:
    """Bytes that stay free beside a file of `size`."""
    return max(MIN_MARGIN, size * MARGIN_PERCENT // 100)


class Mode(StrEnum):
    """Room for two copies, or for one; the journal's `mode`."""

    NORMAL = "normal"
    LOW_SPACE = "low-space"


def needed_bytes(size: int | None, floor: int, mode: Mode) -> int:
    """Bytes that must be usable.

    `size` is the file's size, None while it is unknown; `floor` is `required_disk_space_gb` at the start of a
    generation and 0 when one is resumed.
    """
    if size is None:
        return floor
    copies = 2 if mode is Mode.NORMAL else 1
    return max(floor, copies * size + margin(size))


def mode_for(room: Room, size: int) -> Mode:
    """Return how a generation of `size` begins."""
    return Mode.NORMAL if needed_bytes(size, 0, Mode.NORMAL) <= room.usable else Mode.LOW_SPACE


def missing_bytes(room: Room, size: int | None, floor: int) -> int:
    """Bytes that have to be freed before the download can start or go on; 0 when there is room for one copy."""
    return max(0, needed_bytes(size, floor, Mode.LOW_SPACE) - room.usable)


def reservation(size: int, data: int, copy: int, mode: Mode) -> int:
    """Bytes that another download of `size` will still take: the rest of its data and of its private copy."""
    if mode is Mode.LOW_SPACE:
        return max(0, size - data - copy)
    return max(0, size - data) + max(0, size - copy)
