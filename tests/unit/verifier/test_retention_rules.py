"""For how long a model has been out of the genesis, and what follows: no clock is asked, no file touched."""

import pytest

from services.verifier.retention_rules import (
    SAVE_SECONDS,
    RetentionFacts,
    RetentionStep,
    absent_seconds,
    next_step,
)
from shared.store.records import UnpinnedNote

HOUR = 3600.0
NOW = 1_900_000_000.0
ACCEPTED = NOW - 5 * HOUR
NOTE = UnpinnedNote(sha256="a" * 64, absent_seconds=10 * HOUR, counted_at=NOW - HOUR, accepted_at=ACCEPTED)


def facts(
    note: UnpinnedNote | None = NOTE,
    *,
    is_pinned: bool = False,
    accepted_at: float = ACCEPTED,
    now: float = NOW,
    since_note: float | None = None,
) -> RetentionFacts:
    return RetentionFacts(is_pinned, note, accepted_at, now, since_note)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        pytest.param(facts(None), 0.0, id="it has just left, however old the file is"),
        pytest.param(facts(is_pinned=True), 0.0, id="pinned"),
        pytest.param(facts(), 11 * HOUR, id="after a restart the wall clock is asked"),
        pytest.param(facts(now=NOW - 365 * 24 * HOUR), 10 * HOUR, id="set back by a year while it was down"),
        pytest.param(facts(since_note=60.0), 10 * HOUR + 60, id="running: by the monotonic clock"),
        pytest.param(
            facts(since_note=60.0, now=NOW + 365 * 24 * HOUR), 10 * HOUR + 60, id="running: a jump ahead is nothing"
        ),
        pytest.param(facts(since_note=60.0, now=0.0), 10 * HOUR + 60, id="running: a jump back is nothing"),
        pytest.param(facts(accepted_at=NOW - 1), 0.0, id="another acceptance while it was down: maybe it was pinned"),
        pytest.param(
            facts(accepted_at=NOW - 1, since_note=60.0), 10 * HOUR + 60, id="another acceptance, and we were there"
        ),
    ],
)
def test_only_time_that_is_certain_counts(found: RetentionFacts, wanted: float) -> None:
    assert absent_seconds(found) == wanted


@pytest.mark.parametrize(
    ("found", "retain_hours", "wanted"),
    [
        pytest.param(facts(None, is_pinned=True), 1, RetentionStep.NOTHING, id="pinned"),
        pytest.param(facts(is_pinned=True, since_note=1.0), 1, RetentionStep.FORGET, id="pinned again"),
        pytest.param(facts(None), 0.0001, RetentionStep.NOTE, id="left a moment ago"),
        pytest.param(facts(), 11, RetentionStep.REMOVE, id="long enough, by the wall clock"),
        pytest.param(facts(since_note=60.0), 10, RetentionStep.REMOVE, id="long enough"),
        pytest.param(facts(), 11.1, RetentionStep.NOTE, id="not yet, noted by another process"),
        pytest.param(facts(since_note=60.0), 11, RetentionStep.NOTHING, id="not yet, and noted"),
        pytest.param(facts(since_note=SAVE_SECONDS), 11, RetentionStep.NOTE, id="not yet, and not noted for a while"),
        pytest.param(facts(accepted_at=NOW, since_note=1.0), 11, RetentionStep.NOTE, id="another acceptance"),
        pytest.param(facts(accepted_at=NOW), 10, RetentionStep.NOTE, id="another acceptance while it was down"),
        pytest.param(facts(since_note=60.0), None, RetentionStep.NOTHING, id="kept until somebody collects"),
        pytest.param(facts(None), None, RetentionStep.NOTE, id="kept, and noted"),
    ],
)
def test_what_comes_next(found: RetentionFacts, retain_hours: float | None, wanted: RetentionStep) -> None:
    assert next_step(found, None if retain_hours is None else retain_hours * HOUR) is wanted
