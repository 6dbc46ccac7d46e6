"""How many connections are worth having. Pure: rates and refusals go in, a number comes out.

Begins with all that are allowed, since that is right for most servers. A server that says "too many" halves them. After
that it climbs: now and then a few fewer or a few more are tried for some seconds, and stay if they are no slower
(fewer) or clearly faster (more). What did not pay is tried again after twice the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

# Seconds between two trials at first, and at most.
_FIRST_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 320.0
# Seconds of a trial, of which the first part settles and is not measured.
_TRIAL_SECONDS = 3.0
_SETTLE_SECONDS = 1.0
# Fewer connections stay if they bring this part of the rate, more if they bring this multiple.
_AS_FAST = 0.97
_FASTER = 1.08
# After a refusal one connection comes back after so many seconds without another.
_RECOVERY_SECONDS = 30.0


class _Trial(Enum):
    FEWER = auto()
    MORE = auto()


@dataclass(slots=True)
class _Measure:
    """Bytes received at a time of the caller's clock (seconds)."""

    at: float
    received: int

    def rate_until(self, now: float, received: int) -> float:
        return (received - self.received) / max(now - self.at, 1e-6)


class Governor:
    """`allowed` connections of at most `limit`; call `look` about twice a second with the bytes received so far."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.allowed = limit
        self._pause = _FIRST_PAUSE_SECONDS
        self._steady: _Measure | None = None
        self._next_trial_at = now + self._pause
        self._trial: _Trial | None = None
        self._before = limit
        self._rate_before = 0.0
        self._trial_began_at = 0.0
        self._refused_at: float | None = None
        self._last = _Trial.MORE

    def refused(self, now: float) -> None:
        """The server has said that it is too much; several refusals of one moment count once."""
        if self._refused_at is None or now - self._refused_at >= _SETTLE_SECONDS:
            self.allowed = max(1, self.allowed // 2)
        self._refused_at = now
        self._rest(now)

    def look(self, now: float, received: int) -> int:
        """Return how many connections may run now."""
        if self._refused_at is not None:
            self._recover(now)
        elif self._trial is not None:
            self._judge(now, received)
        elif self._steady is None:
            self._steady = _Measure(now, received)
        elif now >= self._next_trial_at and self.limit > 1:
            self._try(now, received)
        return self.allowed

    def _recover(self, now: float) -> None:
        if self._refused_at is not None and now - self._refused_at >= _RECOVERY_SECONDS:
            self.allowed = min(self.limit, self.allowed + 1)
            self._refused_at = now if self.allowed < self.limit else None
            self._rest(now)

    def _try(self, now: float, received: int) -> None:
        """Begin a trial: of fewer and of more in turn, where there are fewer and more."""
        if self._steady is None or received == self._steady.received:
            self._rest(now)
            return
        self._rate_before, self._before = self._steady.rate_until(now, received), self.allowed
        step = max(1, self.allowed // 4)
        can_more, can_fewer = self.allowed < self.limit, self.allowed > 1
        self._trial = _Trial.MORE if can_more and (self._last is _Trial.FEWER or not can_fewer) else _Trial.FEWER
        self._last = self._trial
        self.allowed += step if self._trial is _Trial.MORE else -step
        self.allowed = min(self.allowed, self.limit)
        self._trial_began_at, self._steady = now, None

    def _judge(self, now: float, received: int) -> None:
        elapsed = now - self._trial_began_at
        if self._steady is None:
            if elapsed >= _SETTLE_SECONDS:
                self._steady = _Measure(now, received)
            return
        if elapsed < _TRIAL_SECONDS:
            return
        rate = self._steady.rate_until(now, received)
        wanted = _AS_FAST if self._trial is _Trial.FEWER else _FASTER
        if rate >= wanted * self._rate_before:
            self._pause = _FIRST_PAUSE_SECONDS
        else:
            self.allowed = self._before
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        self._trial = None
        self._rest(now)

    def _rest(self, now: float) -> None:
        self._trial, self._steady = None, None
        self._next_trial_at = now + self._pause
