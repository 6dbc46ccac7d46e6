"""The rights of each service in Redis, on the server itself: enough for everything it does, and for nothing else."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.hints import RedisHints
from shared.queue import VerifyQueue, run_worker
from shared.redis_link import RedisLink
from shared.redis_rights import DOWNLOADER, HEALTH, SERVICES, VERIFIER, service_rights
from shared.states import ModelState, ModelStatus, VerificationProgress
from tests.support.chain import MIB, Chain
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NODE = "local"
DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis") / "data", node=NODE, append_only=True) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    """Whoever may everything, on an empty server whose log of refusals is empty as well."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        client.acl_log_reset()
        yield client


def refusals(admin: redis.Redis) -> list[str]:
    return [f"{row['username']}: {row['reason']} {row['object']}" for row in admin.acl_log()]


@pytest.mark.slow
def test_the_chain_works_with_these_rights_and_nothing_is_refused(
    tmp_path: Path, server: RedisServer, admin: redis.Redis
) -> None:
    urls = {"downloader_redis": server.service_url(DOWNLOADER), "verifier_redis": server.service_url(VERIFIER)}
    with Chain(tmp_path / "home", size=8 * MIB, pace=4 * MIB, **urls) as chain:
        chain.start()
        chain.wait_verified(60)
        assert refusals(admin) == []
        idle = {"queued": 0, "started": 0}
        wait_until(
            lambda: chain.downloader.get("/api/v1/status")["queue"] == idle, 30, "no job, once the last is ended"
        )
        finished = {"status": "finished"}
        wait_until(lambda: chain.verifier.metric("r3mes_verify_queue_jobs", finished) >= 1, what="the gauge")
        assert chain.verifier.terminate() == 0
    assert refusals(admin) == []


class Recorder:
    """What was sent since it was made, by command; what the one who looks sends himself is left out."""

    def __init__(self, admin: redis.Redis) -> None:
        self._admin = admin
        admin.config_resetstat()

    def commands(self) -> set[str]:
        names = {name.removeprefix("cmdstat_").partition("|")[0] for name in self._admin.info("commandstats")}
        return names - {"config", "info", "acl", "auth", "hello"}


def granted(service: str) -> set[str]:
    return {right[1:].partition("|")[0] for right in service_rights(service, NODE) if right.startswith("+")}


def test_the_downloader_has_the_commands_that_it_sends_and_no_others(server: RedisServer, admin: redis.Redis) -> None:
    link = RedisLink(server.service_url(DOWNLOADER))
    queue, hints = VerifyQueue(link, NODE), RedisHints(link, NODE)
    recorder = Recorder(admin)
    stop, heard = threading.Event(), threading.Event()

    def listen() -> None:
        for _event in hints.listen(stop):
            heard.set()

    ear = threading.Thread(target=listen)
    ear.start()
    wait_until(
        lambda: hints.publish_status(ModelStatus(DIGEST, "T", "t.gguf", ModelState.VERIFYING)) and heard.is_set()
    )
    assert queue.enqueue(DIGEST)
    assert queue.pending() == {"queued": 1, "started": 0}
    assert hints.read_verification(DIGEST) is None
    assert hints.read_copy_size(DIGEST) == 0
    stop.set()
    ear.join(10)
    link.close()
    assert refusals(admin) == []
    assert recorder.commands() == granted(DOWNLOADER)


def test_the_verifier_has_the_commands_that_it_sends_and_no_others(
    server: RedisServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.queue.worker.HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr("shared.queue.worker.MAINTENANCE_SECONDS", 0.05)
    downloader, link = RedisLink(server.service_url(DOWNLOADER)), RedisLink(server.service_url(VERIFIER))
    may_finish, stop, refused = threading.Event(), threading.Event(), []

    def verify(digest: str) -> str:
        assert may_finish.wait(30)
        if digest == OTHER:
            raise OSError("the disk is on fire")
        return "promoted"

    module = types.ModuleType("services.verifier.job")
    module.verify = verify  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "services.verifier.job", module)
    assert VerifyQueue(downloader, NODE).enqueue(DIGEST)
    assert VerifyQueue(downloader, NODE).enqueue(OTHER)
    # What a hostile downloader, or somebody with all rights, may have left.
    downloader.raw.rpush("rq:queue:verify:local", "os.system", f"verify-other_{DIGEST}_1")
    admin.zadd("rq:wip:verify:local", {f"verify-local_{DIGEST}_1:1": 1, f"verify-other_{DIGEST}_1:1": 1})
    admin.sadd("rq:workers:verify:local", f"rq:worker:verifier-{NODE}_dead")
    recorder = Recorder(admin)
    queue, hints = VerifyQueue(link, NODE), RedisHints(link, NODE)
    worker = threading.Thread(target=run_worker, args=(link, NODE, stop), kwargs={"on_refused": refused.append})
    worker.start()
    wait_until(lambda: queue.counts()["started"] == 1, what="the first job to start")
    begun = admin.zrange("rq:wip:verify:local", 0, -1, withscores=True)
    wait_until(lambda: admin.zrange("rq:wip:verify:local", 0, -1, withscores=True) != begun, what="a renewal")
    assert queue.oldest_seconds() > 0
    may_finish.set()
    wait_until(lambda: queue.counts() == {"queued": 0, "started": 0, "finished": 1, "failed": 1}, what="the end of all")
    wait_until(lambda: len(refused) == 2, what="the forged jobs to be refused")
    wait_until(lambda: admin.scard("rq:workers:verify:local") == 1, what="the dead worker to be forgotten")
    assert hints.publish_verification(VerificationProgress(DIGEST, "b" * 32, 50, 100, 1.0))
    assert hints.publish_copy_size(DIGEST, 5)
    stop.set()
    worker.join(10)
    link.close()
    downloader.close()
    assert refusals(admin) == ["verifier: key rq:job:verify-other_" + DIGEST + "_1"]
    looked = {"zrange", "scard"}  # by this test
    assert recorder.commands() - looked == granted(VERIFIER) - {"unwatch"}  # which ends a transaction that failed


REFUSED_TO_ALL = (
    "FLUSHALL", "FLUSHDB", "CONFIG SET dir /", "CONFIG GET *", "KEYS *", "SCAN 0", "DBSIZE", "INFO", "MONITOR",
    "ACL WHOAMI", "ACL SETUSER me on nopass ~* +@all", "DEBUG SLEEP 0", "EVAL return 0", "SCRIPT LOAD x",
    "MODULE LIST", "SHUTDOWN NOSAVE", "REPLICAOF 127.0.0.1 1", "SAVE", "BGREWRITEAOF", "SWAPDB 0 1",
    "SELECT 1", "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "RENAME rq:queues x",
    "MIGRATE 127.0.0.1 1 x 0 1",
    "OBJECT HELP", "SLOWLOG GET", "LATENCY LATEST", "RESTORE r3mes:local:x 0 x", "DUMP rq:queues", "UNLINK rq:queues",
    "PSUBSCRIBE *", "PSUBSCRIBE r3mes:local:*",
    # RQ's switches: all workers stop, or one does what a message says
    "SET rq:suspended 1", "PUBLISH rq:pubsub:verifier-local_1 x", "PUBLISH r3mes:other:events x",
    # another node's
    "RPUSH rq:queue:verify:other x", "HSET rq:job:verify-other_1 status x", "SET r3mes:other:copy:1 1",
    "GET r3mes:other:copy:1", "HSET rq:job:os.system data x", "SET r3mes:locals:copy:1 1",
)  # fmt: skip
REFUSED_TO_THE_DOWNLOADER = (
    "SUBSCRIBE rq:pubsub:verifier-local_1", "SUBSCRIBE r3mes:other:events", "DEL rq:queue:verify:local",
    "BLPOP rq:queue:verify:local 1", "LREM rq:queue:verify:local 0 x", "HGETALL rq:job:verify-local_1",
    "ZADD rq:wip:verify:local 1 x", "ZREM rq:wip:verify:local x", "ZCARD rq:finished:verify:local",
    "ZRANGE rq:failed:verify:local 0 -1", "SADD rq:workers x", "SADD rq:workers:verify:local x",
    "HSET rq:worker:verifier-local_1 death x", "HSET rq:execution:verify-local_1:1 x x",
    "XADD rq:results:verify-local_1 * x x", "ZRANGE rq:executions:verify-local_1 0 -1", "CLIENT SETNAME x",
)  # fmt: skip
REFUSED_TO_THE_VERIFIER = (
    "GET r3mes:local:model:x", "SUBSCRIBE r3mes:local:events", "RPUSH rq:queue:verify:local x", "SADD rq:queues x",
    "HSET rq:worker:verifier-other_1 death x", "HSET rq:worker:verifier-local-other_1 death x",
    "ZADD rq:scheduled:verify:local 1 x", "ZADD rq:deferred:verify:local 1 x", "BLPOP rq:queue:verify:other 1",
)  # fmt: skip
CASES = [
    *((service, command) for service in SERVICES for command in REFUSED_TO_ALL),
    *((DOWNLOADER, command) for command in REFUSED_TO_THE_DOWNLOADER),
    *((VERIFIER, command) for command in REFUSED_TO_THE_VERIFIER),
    *((HEALTH, command) for command in (*REFUSED_TO_ALL, "GET x", "PUBLISH x x", "SUBSCRIBE x")),
]


def connect(server: RedisServer, user: str) -> redis.Redis:
    if user == HEALTH:
        return redis.Redis(port=server.port, username=HEALTH, password="whatever", retry=Retry(NoBackoff(), 0))
    return RedisLink(server.service_url(user)).raw


@pytest.mark.parametrize(("user", "command"), CASES, ids=lambda value: str(value).replace(" ", "_"))
def test_what_a_service_has_no_right_to_is_refused(
    server: RedisServer, admin: redis.Redis, user: str, command: str
) -> None:
    # From Redis 7 on DEBUG is refused to everyone, before anybody's rights are looked at.
    error = redis.ResponseError if command.startswith("DEBUG") else redis.exceptions.NoPermissionError
    with connect(server, user) as client, pytest.raises(error, match=r"permission|DEBUG command not allowed"):
        client.execute_command(*command.split())
    assert admin.dbsize() == 0


def test_a_healthcheck_needs_no_secret(server: RedisServer) -> None:
    with connect(server, HEALTH) as client:
        assert client.ping()


def test_without_a_name_nobody_gets_in(server: RedisServer) -> None:
    for password in (None, "guess"):
        client = redis.Redis(port=server.port, password=password, retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(redis.AuthenticationError):
            client.ping()
