"""The verify queue of one node: at most one queued or running job a digest.

Commands are kept to what the downloader's rights allow (design §2): the queue's list, its jobs' hashes, the started
registry. RQ's intermediate list is not used, since a job that is lost in a crash is enqueued again from the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import redis
from rq.queue import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from shared.queue.job import (
    FAILURE_SECONDS,
    FUNCTION,
    NO_TIMEOUT,
    QUEUED_SECONDS,
    RESULT_SECONDS,
    JobRefusal,
    JobRefusedError,
    VerifyJob,
    queue_name,
)
from shared.redis_link import RedisLink, translated
from shared.store.layout import is_digest

# A started job whose entry nobody renewed for this long, as seen from here, belongs to a dead worker.
STALE_SECONDS = 20.0
_FORGET_SECONDS = 3600.0
# Said beforehand, so that RQ does not ask by INFO: that command is not among the downloader's rights.
REDIS_VERSION = (6, 2, 0)

_Entries = Mapping[str, float]


class NoDeathPenalty(BaseDeathPenalty):
    """No alarm signal: it would leave threads running. Our own deadline and SIGTERM set an event instead."""

    def setup_death_penalty(self) -> None:
        """Nothing to set up."""

    def cancel_death_penalty(self) -> None:
        """Nothing to cancel."""


class RqQueue(Queue):
    """RQ's queue without what we do not need: no intermediate list, no dependents."""

    def __init__(
        self, node: str, connection: redis.Redis, *, on_refused: Callable[[JobRefusal], None] | None = None
    ) -> None:
        super().__init__(
            queue_name(node),
            connection=connection,
            job_class=VerifyJob,
            serializer=JSONSerializer,
            default_timeout=NO_TIMEOUT,
            death_penalty_class=NoDeathPenalty,
        )
        self.redis_server_version = REDIS_VERSION
        self._on_refused = on_refused

    def take(self, seconds: int) -> VerifyJob | None:
        """Wait up to `seconds` for a job and remove it; one that is refused is told to `on_refused`, and gone."""
        taken = self.connection.blpop([self.key], seconds)
        if taken is None:
            return None
        try:
            return self._fetch_own(taken[1])
        except JobRefusedError as error:
            if self._on_refused is not None:
                self._on_refused(error.reason)
            return None

    def _fetch_own(self, job_id: bytes | str) -> VerifyJob:
        job = VerifyJob.fetch(as_ascii(job_id), connection=self.connection)
        if job.origin != self.name:
            raise JobRefusedError(JobRefusal.FIELD)
        return job

    def move_dependents_to_ready(self, *_arguments: object, **_more: object) -> dict[str, list[str]]:
        """No job of ours has dependents, whatever stands in Redis."""
        return {}

    def enqueue_dependents(self, *_arguments: object, **_more: object) -> dict[str, list[str]]:
        """No job of ours has dependents, whatever stands in Redis."""
        return {}


class VerifyQueue:
    """The verify queue of one node, as the downloader and the metrics see it. Methods raise RedisAwayError."""

    def __init__(self, link: RedisLink, node: str) -> None:
        self._connection = link.raw
        self._node = node
        self._queue = RqQueue(node, link.raw)
        self._renewals = Renewals()
        self._keys = {
            "started": registry_key(StartedJobRegistry, node),
            "finished": registry_key(FinishedJobRegistry, node),
            "failed": registry_key(FailedJobRegistry, node),
        }

    def enqueue(self, digest: str) -> bool:
        """Enqueue a verification unless one is queued or running; return whether a job was added.

        A running job counts as long as its worker renews it, seen from here: no clock of another machine decides.
        Raises ValueError when `digest` is not 64 hex digits, RedisAwayError when Redis is away.
        """
        if not is_digest(digest):
            raise ValueError(f"not a digest: {digest!r}")
        mine = f"verify-{self._node}_{digest}_"
        with translated():
            queued, started = self._queued_and_started()
            if any(job_id.startswith(mine) for job_id in queued):
                return False
            running = {entry: score for entry, score in started.items() if entry.startswith(mine)}
            if self._renewals.is_any_alive(running, now=time.monotonic()):
                return False
            self._queue.enqueue_call(
                FUNCTION,
                args=[digest],
                job_id=f"{mine}{time.time_ns() // 1_000_000}",
                timeout=NO_TIMEOUT,
                ttl=QUEUED_SECONDS,
                result_ttl=RESULT_SECONDS,
                failure_ttl=FAILURE_SECONDS,
                description=f"verify {digest}",
            )
        return True

    def counts(self) -> dict[str, int]:
        """Return how many jobs are queued, started, finished and failed (the last two as long as they are kept)."""
        with translated(), self._connection.pipeline() as pipeline:
            pipeline.llen(self._queue.key)
            for key in self._keys.values():
                pipeline.zcard(key)
            return dict(zip(("queued", *self._keys), pipeline.execute(), strict=True))

    def pending(self) -> dict[str, int]:
        """Return how many jobs are queued and started: what the downloader may know.

        To be called now and then: whoever looks only when it enqueues learns late that a worker is dead.
        """
        with translated():
            queued, started = self._queued_and_started()
        self._renewals.observe(started, now=time.monotonic())
        return {"queued": len(queued), "started": len(started)}

    def oldest_seconds(self) -> float:
        """Return for how long the job at the front has waited; 0 when the queue is empty or its front is forged."""
        with translated():
            front = self._connection.lindex(self._queue.key, 0)
            if front is None:
                return 0.0
            try:
                job = VerifyJob.fetch(as_ascii(front), connection=self._connection)
            except JobRefusedError:
                return 0.0
        return 0.0 if job.enqueued_at is None else max(0.0, (datetime.now(UTC) - job.enqueued_at).total_seconds())

    def _queued_and_started(self) -> tuple[set[str], dict[str, float]]:
        with self._connection.pipeline() as pipeline:  # MULTI: a job does not move between the two answers
            pipeline.lrange(self._queue.key, 0, -1)
            pipeline.zrange(self._keys["started"], 0, -1, withscores=True)
            queued, started = pipeline.execute()
        return {as_ascii(job_id) for job_id in queued}, {as_ascii(entry): score for entry, score in started}


class Renewals:
    """Tells running jobs from those of dead workers by whether their entries change while we look. Pure."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def observe(self, entries: _Entries, *, now: float) -> None:
        """Take note of the entries of this moment of the monotonic clock."""
        for entry, score in entries.items():
            if entry not in self._seen or self._seen[entry][0] != score:
                self._seen[entry] = (score, now)
        recent = {entry: seen for entry, seen in self._seen.items() if now - seen[1] < _FORGET_SECONDS}
        self._seen = {entry: self._seen[entry] for entry in {*entries, *recent}}

    def is_any_alive(self, entries: _Entries, *, now: float) -> bool:
        """Tell whether an entry is new or was renewed within STALE_SECONDS of the monotonic clock `now`."""
        self.observe(entries, now=now)
        return any(now - self._seen[entry][1] < STALE_SECONDS for entry in entries)


def registry_key(registry: type[StartedJobRegistry | FinishedJobRegistry | FailedJobRegistry], node: str) -> str:
    """Return the Redis key of one of RQ's registries for a node's queue."""
    return str(registry.key_template.format(queue_name(node)))


def as_ascii(value: bytes | str) -> str:
    """Return text of ours; what is not ASCII cannot be ours and comes out as something that matches nothing."""
    return value if isinstance(value, str) else value.decode("ascii", errors="replace")
