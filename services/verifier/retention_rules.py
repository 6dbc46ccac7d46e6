"""When a model that left the genesis is removed. Pure: facts in, a decision out.

What counts is for how long it has been out, which is counted up and noted beside the file, never taken from the date of
its promotion:

1. a pinned model has no note;
2. one that is out and was not noted has just left: it begins at 0;
3. while the verifier runs, time is added by the monotonic clock, so no jump of the wall clock counts;
4. for the time in which it did not run the wall clock is asked, which gives nothing when it went backwards, and only if
   the acceptance is still the same: under another one it may have been pinned in between, and it begins at 0 again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.store.records import UnpinnedNote

SAVE_SECONDS = 600.0  # how much of the count a kill may cost, beside what the wall clock still knows


class RetentionStep(StrEnum):
    """What comes next."""

    NOTHING = "nothing"
    FORGET = "forget"  # pinned again: remove the note
    NOTE = "note"  # write down for how long it has been out
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class RetentionFacts:
    """What was found of one verified model.

    `accepted_at`: which acceptance holds; `now`: the wall clock; `since_note`: seconds of the monotonic clock since
    this process wrote the note, None when it has not. All in seconds.
    """

    is_pinned: bool
    note: UnpinnedNote | None
    accepted_at: float
    now: float
    since_note: float | None


def absent_seconds(facts: RetentionFacts) -> float:
    """Return for how long a model has certainly been out of the genesis."""
    note = facts.note
    if facts.is_pinned or note is None:
        return 0.0
    if facts.since_note is not None:
        return note.absent_seconds + facts.since_note
    if note.accepted_at != facts.accepted_at:
        return 0.0
    return note.absent_seconds + max(0.0, facts.now - note.counted_at)


def next_step(facts: RetentionFacts, retain_seconds: float | None) -> RetentionStep:
    """Decide; `retain_seconds` None: models that left the genesis are kept."""
    if facts.is_pinned:
        return RetentionStep.NOTHING if facts.note is None else RetentionStep.FORGET
    if facts.note is not None and retain_seconds is not None and absent_seconds(facts) >= retain_seconds:
        return RetentionStep.REMOVE
    is_saved = (
        facts.note is not None
        and facts.since_note is not None
        and facts.since_note < SAVE_SECONDS
        and facts.note.accepted_at == facts.accepted_at
    )
    return RetentionStep.NOTHING if is_saved else RetentionStep.NOTE
