"""The downloader and a real Redis that comes late, forgets everything, or goes away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.downloader.transfer.incoming import read_journal
from shared.hints import RedisHints
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.states import VerificationProgress
from tests.support.downloader_process import MIB, Downloader, model, promote, sha256
from tests.support.origin_server import ScriptedOrigin, linked, ranged
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

DATA = os.urandom(MIB)
DIGEST = sha256(DATA)
PATH = "/org/tiny/resolve/main/tiny.gguf"


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        origin.scripts[PATH] = ranged(DATA, headers=linked(DATA))
        yield origin


@pytest.fixture
def link(clean_redis: str) -> Iterator[RedisLink]:
    link = RedisLink(clean_redis)
    yield link
    link.close()


def downloader(tmp_path: Path, origin: ScriptedOrigin, redis_url: str) -> Downloader:
    environ = {"HF_ENDPOINT": origin.url, "R3MES_REDIS_URL": redis_url}
    return Downloader(tmp_path / "home", model(DATA), environ=environ)


def test_a_complete_file_is_enqueued_once(
    tmp_path: Path, origin: ScriptedOrigin, link: RedisLink, clean_redis: str
) -> None:
    queue = VerifyQueue(link, "local")
    with downloader(tmp_path, origin, clean_redis) as service:
        wait_until(lambda: queue.counts()["queued"] == 1, 20, "the job")
        (job_id,) = link.client.lrange("rq:queue:verify:local", 0, -1)
        assert job_id.startswith(f"verify-local_{DIGEST}_")
        wait_until(lambda: (service.get("/api/v1/status")["queue"] or {}).get("queued") == 1, what="the count")
        assert service.get("/api/v1/status")["redis_up"] is True
        service.kill()
    with service:  # a restart asks again, and the queue takes it once
        service.wait_for(DIGEST, "verifying")
        wait_until(lambda: service.get("/api/v1/status")["queue"], what="Redis to be known")
        assert queue.counts()["queued"] == 1


def test_the_status_stands_in_redis_and_comes_back_after_flushall(
    tmp_path: Path, origin: ScriptedOrigin, link: RedisLink, clean_redis: str
) -> None:
    key = f"r3mes:local:model:{DIGEST}"

    def published() -> dict[str, object]:
        return json.loads(link.client.get(key) or "{}")

    with downloader(tmp_path, origin, clean_redis) as service:
        wait_until(lambda: published().get("state") == "verifying", 20, "the status in Redis")
        link.client.flushall()
        wait_until(lambda: published().get("state") == "verifying", 30, "the status to be published again")
        service.wait_for(DIGEST, "verifying")


@pytest.mark.slow
def test_a_job_that_flushall_took_is_enqueued_again_from_the_disk(
    tmp_path: Path, origin: ScriptedOrigin, link: RedisLink, clean_redis: str
) -> None:
    queue = VerifyQueue(link, "local")
    with downloader(tmp_path, origin, clean_redis) as service:
        wait_until(lambda: queue.counts()["queued"] == 1, 20, "the job")
        link.client.flushall()
        wait_until(lambda: queue.counts()["queued"] == 1, 40, "the job to be enqueued again")
        assert service.status(DIGEST)["state"] == "verifying"
        assert len(origin.asked(PATH)) == 1


def test_a_redis_that_comes_late_gets_the_job(tmp_path: Path, origin: ScriptedOrigin, own_redis: RedisServer) -> None:
    own_redis.stop()
    with downloader(tmp_path, origin, own_redis.url) as service:
        service.wait_for(DIGEST, "verifying")
        wait_until(lambda: service.event("waiting for Redis"), what="the courier to say what it waits for")
        own_redis.start()
        link = RedisLink(own_redis.url)
        queue = VerifyQueue(link, "local")
        wait_until(lambda: queue.counts()["queued"] == 1, 30, "the job")
        assert service.event("Redis answers") is not None
        own_redis.kill()
        wait_until(lambda: service.get("/api/v1/status")["redis_up"] is False, 30, "the absence to be seen")
        own_redis.start()
        wait_until(lambda: service.get("/api/v1/status")["redis_up"], 30, "the return to be seen")
        link.close()


@pytest.mark.slow
def test_a_redis_that_answers_and_refuses_is_asked_again_after_a_pause(
    tmp_path: Path, origin: ScriptedOrigin, link: RedisLink, clean_redis: str
) -> None:
    def refusals() -> int:
        return service.log.count("Redis is away")

    link.client.set("rq:queue:verify:local", "no list")
    with downloader(tmp_path, origin, clean_redis) as service:
        wait_until(refusals, 30, "the first refusal")
        begun, before = time.monotonic(), refusals()
        wait_until(lambda: refusals() >= before + 3, 30, "more of them")
        assert time.monotonic() - begun > 1.5
        link.client.delete("rq:queue:verify:local")
        wait_until(lambda: VerifyQueue(link, "local").counts()["queued"] == 1, 30, "the job")


def test_progress_and_verdict_reach_the_event_stream_through_redis(
    tmp_path: Path, origin: ScriptedOrigin, link: RedisLink, clean_redis: str
) -> None:
    hints = RedisHints(link, "local")
    # Turns are rare here: what is shown in time was shown because it was told.
    service = downloader(tmp_path, origin, clean_redis)
    service.environ["R3MES_RECONCILE_SECONDS"] = "600"
    with service:
        service.wait_for(DIGEST, "verifying")
        journal = read_journal(service.layout, DIGEST)
        assert journal is not None
        hints.publish_verification(VerificationProgress(DIGEST, journal.generation, 12345, len(DATA), time.time()))
        wait_until(lambda: service.status(DIGEST)["hashed_bytes"] == 12345, what="the progress")
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        hints.announce("verdict", DIGEST)
        service.wait_for(DIGEST, "verified", 10)
        wait_until((service.layout.root / "tiny.gguf").is_symlink, what="the link")
