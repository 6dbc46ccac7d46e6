"""The time that a source has had: a clock that stands still while the delay is ours (disk, our own bandwidth limit).

So a slow disk is never a source's silence, and a source's silence is never hidden by a disk that is merely busy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class SourceClock:
    """Seconds; `ours()` may be entered by several threads at once, and stops the clock until the last has left."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._inside = 0
        self._stopped_at = 0.0
        self._stood_still = 0.0

    def now(self) -> float:
        """Seconds of the source's time; never goes back."""
        with self._lock:
            return (self._stopped_at if self._inside else self._monotonic()) - self._stood_still

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Stop the clock meanwhile."""
        with self._lock:
            if self._inside == 0:
                self._stopped_at = self._monotonic()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._stood_still += self._monotonic() - self._stopped_at


class RateWindow:
    """Whether a source is too slow to ever end: pure, fed with the source's time and all bytes received so far."""

    def __init__(self, seconds: float, least_bytes_per_second: float) -> None:
        self._seconds = seconds
        self._least_bytes = seconds * least_bytes_per_second
        self._samples: deque[tuple[float, int]] = deque()

    def is_too_slow(self, now: float, received: int) -> bool:
        """Tell whether the last full window brought less than the least."""
        self._samples.append((now, received))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._seconds:
            self._samples.popleft()
        began, before = self._samples[0]
        return now - began >= self._seconds and received - before < self._least_bytes
