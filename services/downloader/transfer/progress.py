"""How far a running transfer is, told by its thread and read by others: bytes, rate, time left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shared.states import Source

WINDOW_SECONDS = 8.0
_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a transfer that has run for `seconds`; `bytes_per_second` is None while nothing can be said."""

    source: Source
    received: int
    expected: int | None
    bytes_per_second: float | None
    seconds: float = 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last byte at this rate."""
        if self.expected is None or not self.bytes_per_second:
            return None
        return max(0, self.expected - self.received) / self.bytes_per_second


class Progress:
    """Written by one transfer, read by anyone."""

    def __init__(self, source: Source, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._began_at = monotonic()
        self._received = 0
        self._expected: int | None = None
        self._taken = 0
        self._samples: deque[tuple[float, int]] = deque()

    def set(self, received: int, expected: int | None) -> None:
        """Tell where the transfer stands; does not count towards the rate."""
        with self._lock:
            self._received, self._expected = received, expected

    def add(self, count: int, received: int) -> None:
        """Tell that `count` bytes came and `received` are there now."""
        with self._lock:
            now = self._monotonic()
            self._received = received
            if not self._samples:
                self._samples.append((now, self._taken))
            self._taken += count
            if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
                self._samples.append((now, self._taken))
            while len(self._samples) > 1 and now - self._samples[0][0] > WINDOW_SECONDS:
                self._samples.popleft()

    def snapshot(self) -> Snapshot:
        """Return the present state; the rate falls to 0 when nothing comes any more."""
        with self._lock:
            rate, now = None, self._monotonic()
            if self._samples:
                elapsed = now - self._samples[0][0]
                if elapsed >= _SAMPLE_SECONDS:
                    rate = (self._taken - self._samples[0][1]) / elapsed
            return Snapshot(self._source, self._received, self._expected, rate, now - self._began_at)
