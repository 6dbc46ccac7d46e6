"""A bandwidth limit over all connections: what is taken is booked before, and silence saves nothing up."""

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

    def book(self, count: int) -> float:
        """Book `count` bytes before they are taken; return how long to wait until then (seconds).

        Booked beforehand, since several connections would else take a chunk each at once.
        """
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._monotonic()
            begin = max(self._free_at, now)
            self._free_at = begin + count / self._rate
            return begin - now

    def give_back(self, count: int) -> None:
        """Return bytes that were booked and did not come."""
        if self._rate is not None:
            with self._lock:
                self._free_at -= count / self._rate
