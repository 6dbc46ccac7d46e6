"""A Redis that forgets, restarts or is away, under the real downloader and verifier with their own rights.

Disk is the truth and Redis a hint: downloads go on, verdicts come late, nothing is downloaded twice, and no hand but
the reconciler's enqueues anything.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from shared.redis_rights import DOWNLOADER, VERIFIER
from tests.support.chain import MIB, Chain
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

QUEUE, STARTED = "rq:queue:verify:local", "rq:wip:verify:local"
# A lost job is asked for again after 20 s, by a turn that comes once a second here.
VERDICT_SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True, node="local") as server:
        yield server


@contextmanager
def chain_on(
    server: RedisServer, home: Path, *, size: int, pace: float | None = None, **environ: str
) -> Iterator[Chain]:
    urls = {"downloader_redis": server.service_url(DOWNLOADER), "verifier_redis": server.service_url(VERIFIER)}
    with Chain(home, size=size, pace=pace, environ=environ, **urls) as chain:
        yield chain
        assert chain.origin.counters["sent"] <= size * 1.25 + MIB, "bytes were downloaded twice"


def jobs(admin: redis.Redis) -> list[bytes]:
    return list(admin.lrange(QUEUE, 0, -1))


def copied(chain: Chain) -> int:
    """How many bytes the verifier's private copy has, which has no name: the largest of its open files in verified/."""
    sizes = [0]
    for link in Path(f"/proc/{chain.verifier.process.pid}/fd").iterdir():
        try:
            if link.readlink().is_relative_to(chain.layout.verified):
                sizes.append(link.stat().st_size)
        except OSError:  # closed meanwhile
            continue
    return max(sizes)


def test_flushed_at_random_moments_a_download_ends_verified(tmp_path: Path, server: RedisServer) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)  # noqa: T201  pytest shows it on failure
    moments = random.Random(seed)  # noqa: S311  moments, not a secret
    size = 24 * MIB
    with redis.Redis.from_url(server.url) as admin, chain_on(server, tmp_path / "home", size=size, pace=3e6) as chain:
        chain.start()
        for moment in sorted(moments.randrange(size - 4 * MIB) for _ in range(8)):
            wait_until(lambda m=moment: chain.received() >= m, 60, f"byte {moment}")
            admin.flushall()
        # The worst moment of all: the job is queued, nobody has taken it, and nobody will ask again by itself.
        os.kill(chain.verifier.process.pid, signal.SIGSTOP)
        wait_until(lambda: admin.info("clients")["blocked_clients"] == 0, 10, "the verifier to wait for no job")
        wait_until(lambda: chain.status()["state"] == "verifying", 60, "the last byte")
        (first,) = wait_until(lambda: jobs(admin), 10, "the job")
        admin.flushall()
        (second,) = wait_until(lambda: jobs(admin), VERDICT_SECONDS, "another job")
        assert first != second
        os.kill(chain.verifier.process.pid, signal.SIGCONT)
        chain.wait_verified(VERDICT_SECONDS)


def test_a_restarted_redis_has_the_queue_still(tmp_path: Path, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as admin, chain_on(server, tmp_path / "home", size=MIB) as chain:
        chain.downloader.start()
        try:
            (job,) = wait_until(lambda: jobs(admin), 30, "the job")
            for again in (server.restart, server.kill):
                again()
                server.start()
                assert jobs(admin) == [job]
            chain.start_verifier()
            chain.wait_verified(30)
            assert admin.exists(f"rq:job:{job.decode()}"), "it was this job that was done"
        finally:
            chain.downloader.kill()


@pytest.mark.timeout(240)
def test_while_redis_is_away_a_download_goes_on_and_is_followed_and_the_verdict_comes_afterwards(
    tmp_path: Path, server: RedisServer
) -> None:
    size = 40 * MIB
    with chain_on(server, tmp_path / "home", size=size, pace=1.2e6) as chain:
        chain.start()
        wait_until(lambda: chain.received() > 2 * MIB, 60, "the first bytes")
        assert server.pid is not None
        begun = time.monotonic()
        os.kill(server.pid, signal.SIGSTOP)  # connections stand, and nothing answers
        hung_at = chain.received()
        wait_until(lambda: chain.received() > size * 2 // 3, 60, "the download to go on while Redis hangs")
        wait_until(lambda: copied(chain) > size // 2, 30, "the verifier to follow while Redis hangs")
        assert hung_at < size // 3
        wait_until(lambda: not chain.downloader.get("/api/v1/status")["redis_up"], 60, "the downloader to notice")
        wait_until(lambda: chain.verifier.get("/readyz")[0] == 503, 60, "the verifier to notice")
        assert chain.verifier.get("/healthz")[0] == 200
        server.kill()  # now nobody is there at all
        status = chain.downloader.wait_for(chain.digest, "verifying", 60)
        assert status["received_bytes"] == size
        wait_until(lambda: copied(chain) > size - 2 * MIB, 30, "the verifier to follow to the end")
        assert time.monotonic() - begun > 20, "Redis was to be away for a while"
        assert chain.status()["state"] == "verifying", "without Redis nobody asks for the verdict"
        assert not chain.is_promoted()
        server.start()
        chain.wait_verified(VERDICT_SECONDS)


def test_the_verdict_of_a_killed_worker_comes_within_a_minute_by_the_reconciler(
    tmp_path: Path, server: RedisServer
) -> None:
    with (
        redis.Redis.from_url(server.url) as admin,
        chain_on(server, tmp_path / "home", size=256 * MIB, R3MES_RECONCILE_SECONDS="15") as chain,
    ):
        chain.downloader.start()
        try:
            chain.downloader.wait_for(chain.digest, "verifying", 60)
            chain.start_verifier()  # only now, so that the job finds everything to do
            wait_until(lambda: admin.zcard(STARTED), 30, "the job to start")
            chain.verifier.kill()
            begun = time.monotonic()
            assert not chain.is_promoted(), "the kill came too late"
            chain.verifier.restart()
            chain.wait_verified(VERDICT_SECONDS - (time.monotonic() - begun))
        finally:
            chain.downloader.kill()


def test_a_job_that_its_worker_took_and_never_started_is_asked_for_again(tmp_path: Path, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as admin, chain_on(server, tmp_path / "home", size=MIB) as chain:
        chain.downloader.start()
        try:
            wait_until(lambda: jobs(admin), 30, "the job")
            assert admin.lpop(QUEUE), "as a worker does, which then is killed"
            chain.start_verifier()
            chain.wait_verified(VERDICT_SECONDS)
        finally:
            chain.downloader.kill()
