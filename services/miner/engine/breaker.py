"""When to stop starting an engine that dies for no request's sake. Pure: the caller brings the time.

Invariants: `crashes` such deaths within `window_seconds` open it; after a back-off, twice as long each time, one more
start is tried; a death before that one has worked for `steady_seconds` opens it at once; an engine that has worked
that long closes it, and so does `reset` (another file or genesis). A death that is for a request is not counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """`crashes` within the window open it; the rest are seconds."""

    crashes: int = 3
    window_seconds: float = 600.0
    first_seconds: float = 60.0
    most_seconds: float = 900.0
    steady_seconds: float = 120.0
    retry_seconds: float = 1.0  # before the second start, twice that before the third


class Breaker:
    """Counts the deaths that no request is to blame for. Order: `loaded`/`crashed` as they come, `reset` on change."""

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self._crashes: deque[float] = deque(maxlen=self._limits.crashes)
        self._openings = 0
        self._loaded_at: float | None = None

    @property
    def crashes(self) -> int:
        """Deaths that count at the moment."""
        return len(self._crashes)

    @property
    def open(self) -> bool:
        """No start before the back-off is over. It stays so while that start proves itself (half-open)."""
        return self._openings > 0

    def loaded(self, now: float) -> None:
        """Take note that an engine began to work."""
        self._loaded_at = now

    def crashed(self, now: float) -> float:
        """Take note of a death with no request to blame; return for how many seconds not to start another."""
        if self._loaded_at is not None and now - self._loaded_at >= self._limits.steady_seconds and self.open:
            self.reset()
        self._loaded_at = None
        while self._crashes and now - self._crashes[0] > self._limits.window_seconds:
            self._crashes.popleft()
        self._crashes.append(now)
        if not self.open and self.crashes < self._limits.crashes:
            return self._limits.retry_seconds * self.crashes
        self._openings += 1
        doublings = min(self._openings - 1, 30)  # beyond, a float is too short
        return min(self._limits.first_seconds * 2.0**doublings, self._limits.most_seconds)

    def reset(self) -> None:
        """Close it: what died is not what is tried next."""
        self._crashes.clear()
        self._openings = 0
        self._loaded_at = None
