"""When a source is tried again, and when it has failed for this turn. Pure.

Five failures in a row without one new byte, or 90 s without one, and the next source goes on. Failures are forgiven
only by bytes beyond the most that the trial ever had, so a server that cannot resume comes to its end, too. Connections
that fail together fail once: an attempt that began before the last failure says nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.downloader.limits import FIRST_ROUND_SECONDS, LONGEST_ROUND_SECONDS, Limits

_MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Trial:
    """One source's turn.

    `failures` since the last progress, `best` the most bytes that there ever were, `received` those of the present
    generation, `progress_at` when the last of them came, `failed_at` when the last failure that counted was.
    """

    failures: int
    best: int
    received: int
    progress_at: float
    failed_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Wait:
    """Try the same source again after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The source has failed for this turn; `why` in words."""

    why: str


def progressed(trial: Trial, received: int, now: float) -> Trial:
    """Return the trial after `received` bytes of the present generation are there."""
    if received <= trial.received:
        return trial
    failures = 0 if received > trial.best else trial.failures
    return replace(trial, failures=failures, best=max(trial.best, received), received=received, progress_at=now)


def new_generation(trial: Trial) -> Trial:
    """Return the trial after the data began again from 0: bytes that were there before do not clear the failures."""
    return replace(trial, received=0)


def failed(
    trial: Trial, now: float, limits: Limits, *, retry_after: float | None, jitter: float
) -> tuple[Trial, Wait | GiveUp]:
    """Return the trial after one more failure, and what follows.

    `retry_after` is what the server asks for (seconds), `jitter` a random number in 0…1 that spreads the waits.
    """
    after = replace(trial, failures=trial.failures + 1, failed_at=now)
    if after.failures >= limits.failures:
        return after, GiveUp(f"{after.failures} failures in a row without a new byte")
    wait = min(limits.first_wait_seconds * 2 ** (after.failures - 1), limits.longest_wait_seconds)
    wait = max(wait * (0.5 + jitter / 2), retry_after or 0.0)
    if now + wait - trial.progress_at >= limits.quiet_seconds:
        why = f"no new byte for {limits.quiet_seconds:g} s"
        return after, GiveUp(f"{why}: it asks to wait {retry_after:g} s" if retry_after else why)
    return after, Wait(wait)


def counts(trial: Trial, began_at: float) -> bool:
    """Tell whether the failure of an attempt that began at `began_at` is one more, or one that is counted already."""
    return began_at >= trial.failed_at


def is_quiet(trial: Trial, now: float, limits: Limits) -> bool:
    """Tell whether the trial has had no new byte for too long."""
    return now - trial.progress_at >= limits.quiet_seconds


def round_wait(rounds: int) -> float:
    """Seconds until the next round after `rounds` rounds in which every source failed (at least 1)."""
    return min(FIRST_ROUND_SECONDS * 2.0 ** min(rounds - 1, _MAX_DOUBLINGS), LONGEST_ROUND_SECONDS)
