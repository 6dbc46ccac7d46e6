"""How fast something moves, from what it told of itself in the last seconds; a stall is seen as one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
# Before that nothing can be said.
LEAST_SECONDS = 0.5
_SAMPLE_SECONDS = 0.1
_MINUTE, _HOUR = 60, 3600


class Pace:
    """Told how many bytes are done; says bytes per second. One that goes back begins anew."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._done = 0
        self._samples: deque[tuple[float, int]] = deque()

    def tell(self, done: int) -> None:
        """Take note of `done` bytes at this moment."""
        now = self._monotonic()
        if done < self._done:
            self._samples.clear()
        self._done = done
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((now, done))
        self._forget(now)

    def rate(self) -> float | None:
        """Return bytes per second over the last WINDOW_SECONDS; None while nothing can be said."""
        now = self._monotonic()
        self._forget(now)
        if not self._samples or now - self._samples[0][0] < LEAST_SECONDS:
            return None
        began, done = self._samples[0]
        return (self._done - done) / (now - began)

    def left(self, total: int | None) -> float | None:
        """Return the seconds until `total` bytes are done at this rate; None while nothing can be said."""
        rate = self.rate()
        return max(0, total - self._done) / rate if total is not None and rate else None

    def _forget(self, now: float) -> None:
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()


def describe_span(seconds: float) -> str:
    """Return a span of time as a person says it: `17 s`, `2 min 5 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
