"""A bandwidth limit: tokens are bytes, and a burst is at most one second's worth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most `bytes_per_second` over all transfers together; None is no limit."""

    def __init__(self, bytes_per_second: int | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = 0.0

    def chunk_bytes(self, wanted: int) -> int:
        """Return how many bytes to take at once: small steps under a low limit, so that a stop is felt at once."""
        return wanted if self._rate is None else max(1, min(wanted, self._rate // 4))

    def seconds_before(self, count: int) -> float:
        """Book `count` bytes; return how long to wait before taking more."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now
