"""What is to be done with a low-space partial that is found. Pure: facts in, a decision out.

In low-space mode the bytes of a download are split: the partial holds the first `durable` ones, which incoming may have
given up, and incoming the rest. The four steps of design §2 "Space", in their order, so that no crash loses a byte:

1. the verified name is right: all the rest may go;
2. no note, or another generation's: note and partial are void, incoming must still have everything;
3. the partial is too short, or incoming has a hole where the partial does not reach: bytes are lost;
4. else: truncate the partial to `durable`, hash it again, go on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.store.records import Journal, PartialNote


class PartialStep(StrEnum):
    """What comes next."""

    REMOVE = "remove"  # note, partial and then incoming: the model is verified
    DISCARD = "discard"  # note and partial: their generation is gone
    LEAVE = "leave"  # nothing is known of incoming now
    NORMAL = "normal"  # remove what another generation left; there is room for an unnamed copy
    VOID = "void"  # the generation has lost bytes
    BEGIN = "begin"  # remove what another generation left, and begin at byte 0
    RESUME = "resume"  # truncate to `durable`, hash that again, go on


@dataclass(frozen=True, slots=True)
class PartialFacts:
    """What was found.

    `journal`: the valid one of the data that is there, None when there is none; `is_gone`: there is no data, or no file
    of the journal's name, without which a generation is void; `low_space`: the mode is announced, or the room for an
    unnamed copy is not there; `first_hole`: where incoming has its first hole at or after `durable_of(note, journal)`.
    """

    is_verified: bool = False
    is_gone: bool = False
    journal: Journal | None = None
    note: PartialNote | None = None
    low_space: bool = False
    partial_size: int = 0
    first_hole: int = 0


def is_noted(note: PartialNote | None, journal: Journal) -> bool:
    """Tell whether the note speaks of the journal's generation."""
    return note is not None and note.generation == journal.generation


def durable_of(note: PartialNote | None, journal: Journal) -> int:
    """Return how many bytes the partial is said to hold of the journal's generation."""
    return note.durable if note is not None and note.generation == journal.generation else 0


def next_step(facts: PartialFacts) -> PartialStep:
    """Decide, in the order of the four steps."""
    journal = facts.journal
    if facts.is_verified:
        return PartialStep.REMOVE
    if facts.is_gone:
        return PartialStep.DISCARD
    if journal is None:
        return PartialStep.LEAVE
    if not is_noted(facts.note, journal) and not facts.low_space:
        return PartialStep.NORMAL
    durable = durable_of(facts.note, journal)
    if facts.partial_size < durable or facts.first_hole < journal.durable_prefix > durable:
        return PartialStep.VOID
    return PartialStep.RESUME if durable else PartialStep.BEGIN
