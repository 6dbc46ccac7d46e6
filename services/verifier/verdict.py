"""What a full pass over a file says about it. Pure: no file is touched here.

The digest alone approves. A mismatch is pronounced only when the pass began with a complete journal and that journal
still stands after it: a file that somebody was still writing has no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PassEnd(StrEnum):
    """Why a pass over a file ended."""

    EOF = "eof"
    TOO_LONG = "too_long"  # it went on beyond the expected size
    STOPPED = "stopped"  # the process was asked to stop


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass from byte 0: how many bytes were read, the SHA-256 (hex) of exactly those, and why it ended."""

    read_bytes: int
    sha256: str
    end: PassEnd

    @property
    def found(self) -> str | None:
        """The digest of the whole file; None when the pass did not see its end."""
        return self.sha256 if self.end is PassEnd.EOF else None


class Verdict(StrEnum):
    """What is to be done with the bytes."""

    MATCH = "match"
    MISMATCH = "mismatch"
    UNDECIDED = "undecided"
    STOPPED = "stopped"


def judge(pinned: str, whole: Pass, *, generation_before: str | None, generation_after: str | None) -> Verdict:
    """Return the verdict on a pass.

    `pinned` is the pinned digest; the generations are those of the complete, valid journals that stood for this very
    file before and after the pass, None where there was none.
    """
    if whole.end is PassEnd.STOPPED:
        return Verdict.STOPPED
    if whole.found == pinned:
        return Verdict.MATCH
    if generation_before is None or generation_before != generation_after:
        return Verdict.UNDECIDED
    return Verdict.MISMATCH
