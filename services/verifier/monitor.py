"""Keeps the gauges about Redis and the queue current, and knows whether the verifier can do its job now."""

from __future__ import annotations

import threading

from services.verifier.metrics import VerifierMetrics
from shared.queue import VerifyQueue
from shared.redis_link import RedisAwayError, RedisLink

LOOK_SECONDS = 2.0


class Monitor:
    """Looks at Redis every LOOK_SECONDS in a thread of its own, so that no scrape waits for Redis."""

    def __init__(self, link: RedisLink, queue: VerifyQueue, metrics: VerifierMetrics) -> None:
        self._link = link
        self._queue = queue
        self._metrics = metrics
        self._is_up = False
        self.is_swept = False  # set once the housekeeping of the start is done
        self.serving = threading.Event()  # set by the worker while it takes jobs

    def ready(self) -> tuple[bool, str]:
        """Return readiness and its reason: trust is read before this exists; Redis, sweep, worker are left."""
        if not self._is_up:
            return False, "Redis does not answer"
        if not self.is_swept:
            return False, "looking through the store after the start"
        if not self.serving.is_set():
            return False, "the worker takes no jobs yet"
        return True, ""

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set."""
        while True:
            self.look()
            if stop.wait(LOOK_SECONDS):
                return

    def look(self) -> None:
        """Look once; what is unknown while Redis is away is told as NaN, not as what it was."""
        try:
            self._is_up = self._link.is_up() and self._look_at_queue()
        except RedisAwayError:
            self._is_up = False
        self._metrics.redis_up.set(self._is_up)
        if not self._is_up:
            self._metrics.forget_queue()

    def _look_at_queue(self) -> bool:
        counts, oldest = self._queue.counts(), self._queue.oldest_seconds()
        for status, jobs in counts.items():
            self._metrics.queue_jobs.labels(status=status).set(jobs)
        self._metrics.queue_oldest.set(oldest)
        return True
