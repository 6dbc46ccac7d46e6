from __future__ import annotations

import pytest

from services.downloader.limits import Limits
from services.downloader.transfer.stop_rules import (
    GiveUp,
    Trial,
    Wait,
    failed,
    is_quiet,
    new_generation,
    progressed,
    round_wait,
)

LIMITS = Limits()
FRESH = Trial(failures=0, best=0, received=0, progress_at=0.0)


def fail(trial: Trial, now: float, retry_after: float | None = None) -> tuple[Trial, Wait | GiveUp]:
    return failed(trial, now, LIMITS, retry_after=retry_after, jitter=1.0)


def test_the_fifth_failure_in_a_row_without_a_new_byte_ends_the_turn() -> None:
    trial, waits = FRESH, []
    for number in range(1, 5):
        trial, verdict = fail(trial, now=float(number))
        assert isinstance(verdict, Wait)
        waits.append(verdict.seconds)
    assert waits == [1, 2, 4, 8]
    _, verdict = fail(trial, now=5.0)
    assert isinstance(verdict, GiveUp)


def test_a_new_durable_byte_starts_the_count_again() -> None:
    trial = FRESH
    for number in range(4):
        trial, _ = fail(trial, now=float(number))
    trial = progressed(trial, received=1, now=5.0)
    assert trial.failures == 0
    _, verdict = fail(trial, now=6.0)
    assert isinstance(verdict, Wait)


def test_failures_that_a_former_process_left_behind_count() -> None:
    _, verdict = fail(Trial(failures=4, best=0, received=0, progress_at=0.0), now=1.0)
    assert isinstance(verdict, GiveUp)


def test_bytes_that_were_there_before_a_restart_from_0_forgive_nothing() -> None:
    trial = progressed(FRESH, received=100, now=1.0)
    trial, _ = fail(trial, now=2.0)
    trial = progressed(new_generation(trial), received=90, now=3.0)
    assert trial.failures == 1
    assert progressed(trial, received=101, now=4.0).failures == 0


def test_bytes_that_come_again_are_no_silence() -> None:
    trial = progressed(new_generation(progressed(FRESH, received=100, now=1.0)), received=10, now=80.0)
    assert not is_quiet(trial, 100.0, LIMITS)


@pytest.mark.parametrize(("now", "quiet"), [(89.9, False), (90.0, True)])
def test_ninety_seconds_without_a_byte_are_silence(now: float, quiet: bool) -> None:
    assert is_quiet(FRESH, now, LIMITS) is quiet


def test_a_wait_that_would_end_after_ninety_seconds_is_not_begun() -> None:
    _, verdict = fail(FRESH, now=0.0, retry_after=3600.0)
    assert isinstance(verdict, GiveUp)
    assert "3600" in verdict.why


def test_retry_after_is_waited_for_when_there_is_time() -> None:
    assert fail(FRESH, now=0.0, retry_after=30.0)[1] == Wait(30.0)


def test_jitter_shortens_a_wait_to_no_less_than_half() -> None:
    _, verdict = failed(FRESH, 0.0, LIMITS, retry_after=None, jitter=0.0)
    assert verdict == Wait(0.5)


@pytest.mark.parametrize(("rounds", "seconds"), [(1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (10_000, 3600)])
def test_rounds_come_after_a_minute_doubling_to_an_hour(rounds: int, seconds: float) -> None:
    assert round_wait(rounds) == seconds
