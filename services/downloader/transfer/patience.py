"""One source's trial, told by every connection of a turn: the pure stop rules behind a lock, and the source's clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from services.downloader.interrupt import Reason
from services.downloader.limits import Limits
from services.downloader.transfer.source_clock import RateWindow, SourceClock
from services.downloader.transfer.stop_rules import (
    GiveUp,
    Trial,
    Wait,
    counts,
    failed,
    is_quiet,
    new_generation,
    progressed,
)


class Patience:
    """`attempts` are the failures that a former turn left behind, `received` the bytes that are there already.

    `on_failures` is told of each change of the failures in a row, and keeps them on disk.
    """

    def __init__(
        self, limits: Limits, clock: SourceClock, attempts: int, received: int, on_failures: Callable[[int], None]
    ) -> None:
        self.limits = limits
        self.clock = clock
        self._lock = threading.Lock()
        self._trial = Trial(attempts, received, received, clock.now())
        self._window = RateWindow(limits.quiet_seconds, limits.least_bytes_per_second)
        self._taken = 0
        self._on_failures = on_failures

    @property
    def failures(self) -> int:
        """Failures in a row without a new byte."""
        return self._trial.failures

    def begin_generation(self) -> None:
        """The data begins again from 0."""
        with self._lock:
            self._trial = new_generation(self._trial)

    def came(self, count: int, received: int) -> None:
        """`count` bytes came; `received` of the file are there now."""
        with self._lock:
            self._taken += count
            before = self._trial.failures
            self._trial = progressed(self._trial, received, self.clock.now())
            forgiven = before > 0 and self._trial.failures == 0
        if forgiven:
            self._on_failures(0)

    def failed(self, began_at: float, retry_after: float | None) -> Wait | GiveUp | None:
        """An attempt that began at `began_at` of the source's clock has failed; None when that is counted already."""
        with self._lock:
            if not counts(self._trial, began_at):
                return None
            self._trial, verdict = failed(
                self._trial,
                self.clock.now(),
                self.limits,
                retry_after=retry_after,
                jitter=random.random(),  # noqa: S311 - spreads load, protects nothing
            )
            failures = self._trial.failures
        self._on_failures(failures)
        return verdict

    def reason_to_stop(self) -> Reason | None:
        """Say whether the source has been silent, or too slow, for too long; to be asked about twice a second."""
        with self._lock:
            now = self.clock.now()
            if is_quiet(self._trial, now, self.limits):
                return Reason.QUIET
            return Reason.SLOW if self._window.is_too_slow(now, self._taken) else None
