"""The door to RQ, over a real Redis; the verifier's function is replaced by one that notes what it is called with."""

import threading
from collections.abc import Iterator

import pytest

from shared.queue import FUNCTION, JobRefusal, VerifyQueue, build_worker, run_worker
from shared.queue.verify_queue import STALE_SECONDS, Renewals
from shared.redis_link import RedisAwayError, RedisLink
from tests.support.queue_worker import Worker
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def link(clean_redis: str) -> Iterator[RedisLink]:
    link = RedisLink(clean_redis)
    yield link
    link.close()


@pytest.fixture
def worker(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    worker = Worker(link, monkeypatch)
    yield worker
    worker.end()


def test_a_digest_is_queued_once(link: RedisLink) -> None:
    queue = VerifyQueue(link, "local")
    assert queue.enqueue(DIGEST)
    assert not queue.enqueue(DIGEST)
    assert queue.enqueue(OTHER)
    assert queue.counts() == {"queued": 2, "started": 0, "finished": 0, "failed": 0}


def test_nodes_do_not_see_each_other(link: RedisLink) -> None:
    assert VerifyQueue(link, "one").enqueue(DIGEST)
    assert VerifyQueue(link, "two").enqueue(DIGEST)
    assert VerifyQueue(link, "one").counts()["queued"] == 1


def test_the_keys_are_those_that_the_downloader_may_write(link: RedisLink) -> None:
    VerifyQueue(link, "local").enqueue(DIGEST)
    keys = {key.decode() for key in link.raw.keys("*")}
    (job,) = {key for key in keys if key.startswith("rq:job:")}
    assert job.startswith(f"rq:job:verify-local_{DIGEST}_")
    assert keys - {job} == {"rq:queues", "rq:queue:verify:local"}
    assert 0 < link.raw.ttl(job) <= 24 * 3600


def test_what_is_no_digest_is_not_enqueued(link: RedisLink) -> None:
    for wrong in ("", "A" * 64, "a" * 63, "../" + "a" * 61):
        with pytest.raises(ValueError, match="not a digest"):
            VerifyQueue(link, "local").enqueue(wrong)
    assert link.raw.keys("*") == []


def test_the_oldest_job_tells_its_age(link: RedisLink) -> None:
    queue = VerifyQueue(link, "local")
    assert queue.oldest_seconds() == 0
    queue.enqueue(DIGEST)
    wait_until(lambda: queue.oldest_seconds() > 0.05, what="the age to grow")
    link.raw.lpush("rq:queue:verify:local", "forged")
    assert queue.oldest_seconds() == 0


def test_a_job_runs_once_and_can_be_enqueued_again_afterwards(link: RedisLink, worker: Worker) -> None:
    queue = VerifyQueue(link, "local")
    queue.enqueue(DIGEST)
    wait_until(lambda: queue.counts()["finished"] == 1, what="the job to finish")
    assert worker.calls == [DIGEST]
    assert queue.enqueue(DIGEST)
    wait_until(lambda: worker.calls == [DIGEST, DIGEST], what="the second job")


def test_a_running_job_is_not_enqueued_again(link: RedisLink, worker: Worker) -> None:
    worker.may_finish.clear()
    queue = VerifyQueue(link, "local")
    queue.enqueue(DIGEST)
    wait_until(lambda: queue.counts()["started"] == 1, what="the job to start")
    assert not queue.enqueue(DIGEST)
    assert VerifyQueue(link, "local").enqueue(OTHER), "another digest is another matter"


def test_an_exception_in_a_job_is_recorded_and_the_worker_goes_on(link: RedisLink, worker: Worker) -> None:
    queue = VerifyQueue(link, "local")
    worker.fails = True
    queue.enqueue(DIGEST)
    wait_until(lambda: queue.counts()["failed"] == 1, what="the failure to be recorded")
    worker.fails = False
    assert queue.enqueue(DIGEST)
    wait_until(lambda: queue.counts()["finished"] == 1, what="the next job")


def test_flushall_during_a_job_costs_nothing_but_the_record(link: RedisLink, worker: Worker) -> None:
    worker.may_finish.clear()
    queue = VerifyQueue(link, "local")
    queue.enqueue(DIGEST)
    wait_until(lambda: worker.calls, what="the job to start")
    link.raw.flushall()
    worker.may_finish.set()
    wait_until(lambda: queue.enqueue(OTHER) or OTHER in worker.calls, what="another job")
    wait_until(lambda: OTHER in worker.calls, what="another job to run")


def test_an_idle_worker_stops_within_two_seconds(link: RedisLink, worker: Worker) -> None:
    wait_until(lambda: link.raw.keys("rq:worker:*"), what="the worker to register")
    worker.stop.set()
    worker.thread.join(2)
    assert not worker.thread.is_alive()
    assert link.raw.smembers("rq:workers") == set()


def test_maintenance_sweeps_what_dead_workers_and_others_left(link: RedisLink) -> None:
    dead, foreign = f"verify-local_{DIGEST}_1", "os.system"
    link.raw.hset(f"rq:job:{dead}", "status", "started")
    link.raw.hset(f"rq:job:{foreign}", "status", "started")
    link.raw.zadd("rq:wip:verify:local", {f"{dead}:1": 1, f"{foreign}:1": 1, b"\xff:x": 1})
    link.raw.zadd("rq:failed:verify:local", {dead: 1})
    build_worker(link, "local", threading.Event(), on_refused=lambda _reason: None).run_maintenance_tasks()
    assert VerifyQueue(link, "local").counts() == {"queued": 0, "started": 0, "finished": 0, "failed": 0}
    assert link.raw.ttl(f"rq:job:{dead}") > 0
    assert link.raw.ttl(f"rq:job:{foreign}") == -1, "what is not ours is not touched"


def test_what_a_killed_worker_had_begun_may_be_asked_for_as_soon_as_another_serves(
    link: RedisLink, worker: Worker
) -> None:
    assert worker.serving.wait(10)
    worker.end()
    link.raw.zadd("rq:wip:verify:local", {f"verify-local_{DIGEST}_1:1": 1e12})
    queue = VerifyQueue(link, "local")
    assert not queue.enqueue(DIGEST)
    stop, serving = threading.Event(), threading.Event()
    next_one = threading.Thread(
        target=run_worker, args=(link, "local", stop), kwargs={"on_refused": worker.refused.append, "serving": serving}
    )
    next_one.start()
    try:
        assert serving.wait(10)
        assert queue.enqueue(DIGEST)
        wait_until(lambda: worker.calls == [DIGEST], what="the job to run")
    finally:
        stop.set()
        next_one.join(15)


def test_refusals_are_told_with_their_reason(link: RedisLink, worker: Worker) -> None:
    link.raw.rpush("rq:queue:verify:local", "os.system", f"verify-local_{DIGEST}_1")
    wait_until(lambda: worker.refused == [JobRefusal.ID, JobRefusal.ABSENT], what="two refusals")


def test_a_redis_that_is_away_is_told_as_such(own_redis: RedisServer) -> None:
    link = RedisLink(own_redis.url)
    queue = VerifyQueue(link, "local")
    own_redis.kill()
    for call in (lambda: queue.enqueue(DIGEST), queue.counts, queue.oldest_seconds):
        with pytest.raises(RedisAwayError):
            call()
    link.close()


def test_a_worker_comes_back_when_redis_does(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = RedisLink(own_redis.url)
    worker = Worker(link, monkeypatch)
    try:
        wait_until(lambda: link.raw.keys("rq:worker:*"), what="the worker to register")
        own_redis.restart()
        queue = VerifyQueue(link, "local")
        wait_until(lambda: link.is_up() and queue.enqueue(DIGEST), 20, what="a job to be queued")
        wait_until(lambda: worker.calls == [DIGEST], 20, what="the job to run")
    finally:
        worker.end()
        link.close()


def test_the_function_that_jobs_name_exists_and_takes_a_digest() -> None:
    module, _, name = FUNCTION.rpartition(".")
    function = getattr(__import__(module, fromlist=[name]), name)
    assert function.__annotations__ == {"digest": "str", "return": "str"}


class TestRenewals:
    """A running job is known by its renewals, as seen from here: no clock of another machine decides."""

    def test_a_job_seen_for_the_first_time_is_alive(self) -> None:
        assert Renewals().is_any_alive({"job:1": 5.0}, now=0.0)

    def test_a_job_that_nobody_renews_is_dead_after_a_while(self) -> None:
        renewals = Renewals()
        renewals.is_any_alive({"job:1": 5.0}, now=0.0)
        assert renewals.is_any_alive({"job:1": 5.0}, now=STALE_SECONDS - 1)
        assert not renewals.is_any_alive({"job:1": 5.0}, now=STALE_SECONDS)

    def test_a_renewal_keeps_it_alive_whatever_the_other_clock_says(self) -> None:
        renewals = Renewals()
        for turn in range(10):
            assert renewals.is_any_alive({"job:1": 5.0 - turn}, now=turn * (STALE_SECONDS - 1))

    def test_who_looks_in_between_knows_sooner(self) -> None:
        renewals = Renewals()
        renewals.observe({"job:1": 5.0}, now=0.0)
        assert not renewals.is_any_alive({"job:1": 5.0}, now=STALE_SECONDS)

    def test_an_entry_that_stays_for_hours_does_not_come_to_life_again(self) -> None:
        renewals = Renewals()
        for hour in range(5):
            renewals.observe({"job:1": 5.0}, now=hour * 3600.0)
        assert not renewals.is_any_alive({"job:1": 5.0}, now=5 * 3600.0)

    def test_one_living_execution_is_enough(self) -> None:
        renewals = Renewals()
        renewals.is_any_alive({"job:1": 5.0}, now=0.0)
        assert renewals.is_any_alive({"job:1": 5.0, "job:2": 5.0}, now=STALE_SECONDS)

    def test_no_execution_is_not_alive(self) -> None:
        assert not Renewals().is_any_alive({}, now=0.0)


def test_serving_is_said_only_while_the_worker_is_registered(link: RedisLink, worker: Worker) -> None:
    assert worker.serving.wait(10)
    assert link.client.scard("rq:workers") == 1
    worker.end()
    assert not worker.serving.is_set()
    assert link.client.scard("rq:workers") == 0
