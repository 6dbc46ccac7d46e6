"""The flight recorder: what the engine works for right now, in memory that outlives it.

The API process makes the memory and the engine inherits it; only the engine writes, and the API process reads once the
engine is dead. Two halves and one byte that says which of them holds: a death in the middle of a write leaves the
half before it readable. Order: `new_memory` → `FlightRecorder(fd)` in the engine, `read_flight(fd)` after its death.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

HALF_BYTES = 32 * 1024  # 256 sequences, the most that llama.cpp gives, with ids of 127 characters
FIRST_HALF = mmap.PAGESIZE  # the byte that names the half has a page of its own
MEMORY_BYTES = FIRST_HALF + 2 * HALF_BYTES
MEMORY_NAME = "r3mes-flight"  # as /proc shows the descriptor

_HEAD = struct.Struct("=BI")  # what is worked on, bytes of the ids


class Work(IntEnum):
    """What the engine does. `SAMPLING` includes turning the token into text."""

    LOADING = 0  # what fresh memory says
    IDLE = 1
    ADMITTING = 2
    DECODING = 3
    SAMPLING = 4


@dataclass(frozen=True, slots=True)
class Flight:
    """The last entry: the work, and the ids of the requests that it was for."""

    work: Work
    request_ids: tuple[str, ...] = ()


class Recorder(Protocol):
    """Who wants to know what the engine is about to do."""

    def working(self, work: Work, request_ids: Iterable[str] = ()) -> None:
        """Take what comes next and for whom; called before each unit of work, so it must be cheap."""
        ...


class NoRecorder:
    """For an engine that nobody has to explain."""

    def working(self, work: Work, request_ids: Iterable[str] = ()) -> None:
        """Forget it."""


class FlightRecorder:
    """The engine's end."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, MEMORY_BYTES)
        self._half = self._memory[0]

    def working(self, work: Work, request_ids: Iterable[str] = ()) -> None:
        """Write what comes next; ids beyond the room are left out, which only makes blame impossible."""
        ids = "\n".join(request_ids).encode()[: HALF_BYTES - _HEAD.size]
        half = 1 - self._half
        start = FIRST_HALF + half * HALF_BYTES
        _HEAD.pack_into(self._memory, start, work, len(ids))
        self._memory[start + _HEAD.size : start + _HEAD.size + len(ids)] = ids
        self._memory[0] = self._half = half


def new_memory() -> int:
    """Return a descriptor of fresh memory for one engine; the caller closes it. Raises OSError."""
    descriptor = os.memfd_create(MEMORY_NAME)
    os.ftruncate(descriptor, MEMORY_BYTES)
    return descriptor


def read_flight(descriptor: int) -> Flight:
    """Return the last entry of an engine that is dead; raises ValueError where the engine wrote over it at random."""
    with mmap.mmap(descriptor, MEMORY_BYTES, prot=mmap.PROT_READ) as memory:
        start = FIRST_HALF + memory[0] * HALF_BYTES
        if memory[0] > 1:
            raise ValueError(f"the flight recorder names half {memory[0]}")
        work, length = _HEAD.unpack_from(memory, start)
        start += _HEAD.size
        text = memory[start : start + length].decode()
    return Flight(Work(work), tuple(text.split("\n")) if text else ())
