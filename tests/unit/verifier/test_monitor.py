"""What the verifier tells about Redis and its queue is what RQ itself counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from rq.queue import Queue
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from services.verifier.metrics import JOB_STATUSES, VerifierMetrics
from services.verifier.monitor import Monitor
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from tests.support.queue_worker import Worker
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NAME = "verify:local"
DIGESTS = [character * 64 for character in "abcde"]


class Watched:
    """A queue, the monitor that looks at it, and its gauges."""

    def __init__(self, link: RedisLink) -> None:
        self.registry = CollectorRegistry()
        self.queue = VerifyQueue(link, "local")
        self.monitor = Monitor(link, self.queue, VerifierMetrics(self.registry))

    def told(self) -> dict[str, float]:
        self.monitor.look()
        return {status: self.value("r3mes_verify_queue_jobs", status=status) for status in JOB_STATUSES}

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, labels)
        assert found is not None
        return found


def counted_by_rq(link: RedisLink) -> dict[str, float]:
    registries = {"started": StartedJobRegistry, "finished": FinishedJobRegistry, "failed": FailedJobRegistry}
    counts = {
        status: registry(NAME, connection=link.raw).get_job_count(cleanup=False)
        for status, registry in registries.items()
    }
    return {"queued": Queue(NAME, connection=link.raw).count, **counts}


@pytest.fixture
def link(clean_redis: str) -> Iterator[RedisLink]:
    link = RedisLink(clean_redis)
    yield link
    link.close()


def test_jobs_are_counted_as_rq_counts_them_in_every_state(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(link)
    for digest in DIGESTS:
        assert watched.queue.enqueue(digest)
    assert watched.told() == counted_by_rq(link) == {"queued": 5, "started": 0, "finished": 0, "failed": 0}
    worker = Worker(link, monkeypatch, held=True)
    try:
        wait_until(lambda: worker.calls, what="the first job to run")
        wait_until(lambda: watched.told()["started"] == 1, what="it to be seen")
        assert watched.told() == counted_by_rq(link) == {"queued": 4, "started": 1, "finished": 0, "failed": 0}
        worker.fails = True
        worker.may_finish.set()
        wait_until(lambda: watched.told()["failed"] == 5, what="all to fail")
        assert watched.told() == counted_by_rq(link)
        worker.fails = False
        assert watched.queue.enqueue(DIGESTS[0])
        wait_until(lambda: watched.told()["finished"] == 1, what="one to finish")
        assert watched.told() == counted_by_rq(link) == {"queued": 0, "started": 0, "finished": 1, "failed": 5}
    finally:
        worker.end()


def test_no_job_of_ours_is_in_a_state_that_is_not_told(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, worker = Watched(link), Worker(link, monkeypatch)
    try:
        for digest in DIGESTS:
            watched.queue.enqueue(digest)
        wait_until(lambda: watched.told()["finished"] == 5, what="all jobs")
    finally:
        worker.end()
    for registry in (DeferredJobRegistry, ScheduledJobRegistry, CanceledJobRegistry):
        assert registry(NAME, connection=link.raw).get_job_count(cleanup=False) == 0


def test_the_age_of_the_front_grows_until_it_is_taken(link: RedisLink) -> None:
    watched = Watched(link)
    watched.told()
    assert watched.value("r3mes_verify_queue_oldest_seconds") == 0
    watched.queue.enqueue(DIGESTS[0])

    def grown() -> bool:
        watched.told()
        return watched.value("r3mes_verify_queue_oldest_seconds") > 0.05

    wait_until(grown, what="the age to grow")


def test_what_nobody_knows_is_not_told_as_what_it_was(own_redis: RedisServer) -> None:
    link = RedisLink(own_redis.url)
    watched = Watched(link)
    assert all(math.isnan(watched.value("r3mes_verify_queue_jobs", status=status)) for status in JOB_STATUSES)
    watched.queue.enqueue(DIGESTS[0])
    assert watched.told()["queued"] == 1
    assert watched.value("r3mes_redis_up") == 1
    own_redis.kill()
    assert all(math.isnan(jobs) for jobs in watched.told().values())
    assert math.isnan(watched.value("r3mes_verify_queue_oldest_seconds"))
    assert watched.value("r3mes_redis_up") == 0
    assert watched.monitor.ready() == (False, "Redis does not answer")
    own_redis.start()
    wait_until(lambda: watched.told()["queued"] == 1, 20, "Redis to be back")
    link.close()
