"""RQ's worker, tamed: one process, no forks, no alarm signals, no commands, at home in a world where Redis goes away.

`run_worker` is the whole life: wait for Redis, serve, and begin again with a new name when Redis was lost. It returns
only when `stop` is set; `serving` is set exactly while the worker is registered and takes jobs. A job's function runs
in the calling thread and looks at `stop` by itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import redis
import structlog
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker
from rq.worker_registration import clean_worker_registry

from shared.queue.job import FAILURE_SECONDS, RESULT_SECONDS, JobRefusal, JobRefusedError, VerifyJob, match_id
from shared.queue.verify_queue import REDIS_VERSION, NoDeathPenalty, RqQueue, as_ascii, registry_key
from shared.redis_link import RedisAwayError, RedisLink, translated

# A started job is renewed this often, and forgotten this long after the last renewal.
HEARTBEAT_SECONDS = 5
HEARTBEAT_TTL_SECONDS = 30
DEQUEUE_SECONDS = 1  # how soon an idle worker notices that it should stop
MAINTENANCE_SECONDS = 30
PAUSE_AFTER_ERROR_SECONDS = 1.0

log = structlog.get_logger(__name__)

OnRefused = Callable[[JobRefusal], None]


class VerifyWorker(SimpleWorker):
    """Runs jobs in this process and thread until `stop` is set. It listens to no commands and honours no suspension."""

    death_penalty_class = NoDeathPenalty
    job_class = VerifyJob
    log_result_lifespan = False

    def __init__(self, node: str, connection: redis.Redis, stop: threading.Event, on_refused: OnRefused) -> None:
        self._node = node
        self._queue = RqQueue(node, connection, on_refused=on_refused)
        self._stop = stop
        self._maintained_at = float("-inf")
        super().__init__(
            [self._queue],
            name=f"verifier-{node}_{secrets.token_hex(8)}",
            connection=connection,
            job_class=VerifyJob,
            serializer=JSONSerializer,
            worker_ttl=HEARTBEAT_TTL_SECONDS,
            job_monitoring_interval=HEARTBEAT_SECONDS,
            default_result_ttl=RESULT_SECONDS,
            log_job_description=False,
        )

    def serve(self, serving: threading.Event) -> None:
        """Take and run jobs until `stop` is set, with `serving` set meanwhile; raises what Redis raises."""
        self.register_birth()  # type: ignore[no-untyped-call]  # RQ's own
        try:
            # One verifier a node, and it runs nothing yet: what counts as started was a killed one's, and would keep
            # the reconciler from asking again until it expires.
            self._sweep_abandoned(float("inf"))
            serving.set()
            while not self._stop.is_set():
                self.heartbeat()
                if time.monotonic() - self._maintained_at > MAINTENANCE_SECONDS:
                    self.run_maintenance_tasks()
                job = self._queue.take(DEQUEUE_SECONDS)
                if job is not None:
                    job.redis_server_version = REDIS_VERSION
                    self.execute_job(job, self._queue)
        finally:
            serving.clear()
            with suppress(redis.RedisError, OSError):  # what cannot be said now expires by itself
                self.register_death()  # type: ignore[no-untyped-call]  # RQ's own

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job in this thread while another renews its heartbeat."""
        execution = self.prepare_execution(job)
        done = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(job, execution, done), name="job-heartbeat", daemon=True)
        renewal.start()
        try:
            self.perform_job(job, queue, execution)
        finally:
            done.set()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 - RQ's signature
        """Return how long a started job counts as running without a renewal, in seconds."""
        return HEARTBEAT_TTL_SECONDS

    def run_maintenance_tasks(self) -> None:
        """Sweep this queue's own registries by the clock; no job is read for that."""
        with self.connection.pipeline() as pipeline:
            for registry in (FinishedJobRegistry, FailedJobRegistry):
                pipeline.zremrangebyscore(registry_key(registry, self._node), 0, time.time())
            pipeline.execute()
        self._sweep_abandoned(time.time())
        clean_worker_registry(self._queue)
        self._maintained_at = time.monotonic()

    def _sweep_abandoned(self, expired_before: float) -> None:
        """Drop the entries of dead workers and let their jobs expire; the reconciler enqueues others."""
        key = registry_key(StartedJobRegistry, self._node)
        abandoned = cast("list[bytes]", self.connection.zrangebyscore(key, 0, expired_before))
        if not abandoned:
            return
        log.info("jobs of a worker that died", jobs=len(abandoned))
        with self.connection.pipeline() as pipeline:
            pipeline.zremrangebyscore(key, 0, expired_before)
            for entry in abandoned:
                job_id = as_ascii(entry).partition(":")[0]
                with suppress(JobRefusedError):  # an entry that names no job of ours
                    if match_id(job_id)["node"] == self._node:  # of another's we have no right to touch
                        pipeline.expire(VerifyJob.key_for(job_id), FAILURE_SECONDS)
            pipeline.execute()

    def _renew(self, job: Job, execution: Execution, done: threading.Event) -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                self.maintain_heartbeats(job, execution)
            except (redis.RedisError, OSError) as error:
                log.info("no heartbeat for now", error=str(error))  # the work itself needs no Redis


def build_worker(link: RedisLink, node: str, stop: threading.Event, *, on_refused: OnRefused) -> VerifyWorker:
    """Return a worker for the node's queue; raises RedisAwayError when Redis is away."""
    with translated():
        return VerifyWorker(node, link.raw, stop, on_refused)


def run_worker(
    link: RedisLink, node: str, stop: threading.Event, *, on_refused: OnRefused, serving: threading.Event | None = None
) -> None:
    """Serve the node's queue until `stop` is set, through absences and restarts of Redis.

    The caller's signal handler sets `stop`. Jobs run in the calling thread. `serving` is set while jobs are taken.
    """
    serving = serving or threading.Event()
    while link.wait_until_up(stop):
        try:
            worker = build_worker(link, node, stop, on_refused=on_refused)
            with translated():
                worker.serve(serving)
        except RedisAwayError as error:
            log.warning("the queue is out of reach", error=error.message)
            stop.wait(PAUSE_AFTER_ERROR_SECONDS)
        except (ValueError, TypeError) as error:  # RQ stumbled over what somebody wrote under its keys
            log.warning("Redis holds something unreadable", error=str(error))
            stop.wait(PAUSE_AFTER_ERROR_SECONDS)
