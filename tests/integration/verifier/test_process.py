"""The verifier as a process: it works, stops, and lives through everything that Redis does."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import redis

from shared.hints import RedisHints
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from tests.support.redis_server import RedisServer
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

SMALL = os.urandom(300_000)
SMALL_DIGEST = sha256_of(SMALL)
STOP_SECONDS = 5.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(SMALL))


def is_promoted(store: Store, digest: str = SMALL_DIGEST) -> bool:
    return store.verified_names(digest) == ["receipt.json", "tiny.gguf"]


def test_a_job_becomes_a_verified_file_and_others_are_told(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    link = RedisLink(clean_redis)
    with link.client.pubsub() as events:
        events.subscribe("r3mes:local:events")
        store.put(SMALL_DIGEST, SMALL)
        assert VerifyQueue(link, "local").enqueue(SMALL_DIGEST)
        wait_until(lambda: is_promoted(store), what="promotion")
        told = wait_until(lambda: _next_event(events, "verdict"), what="the verdict on the channel")
    assert told["sha256"] == SMALL_DIGEST
    hints = RedisHints(link, "local")
    wait_until(lambda: hints.read_verification(SMALL_DIGEST), what="the progress")
    wait_until(lambda: hints.read_copy_size(SMALL_DIGEST) == 0, what="the end of the copy, told by a thread of its own")
    assert verifier.metric("r3mes_verifications_total", {"result": "match"}) == 1
    assert verifier.metric("r3mes_redis_up") == 1
    assert verifier.get("/healthz")[0] == 200
    wait_until(
        lambda: verifier.metric("r3mes_verify_queue_jobs", {"status": "finished"}) == 1, what="the queue's gauge"
    )
    link.close()


def _next_event(events: redis.client.PubSub, kind: str) -> dict[str, str] | None:
    message = events.get_message(ignore_subscribe_messages=True, timeout=0.1)
    document = json.loads(message["data"]) if message else {}
    return document if document.get("type") == kind else None


def test_duplicates_of_a_job_change_nothing(store: Store, clean_redis: str, start_verifier: StartVerifier) -> None:
    store.put(SMALL_DIGEST, SMALL)
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    assert queue.enqueue(SMALL_DIGEST)
    (job_key,) = link.raw.keys("rq:job:*")
    for attempt in range(5):  # as if several reconcilers had raced
        copy = job_key + str(attempt).encode()
        link.raw.hset(copy, mapping=link.raw.hgetall(job_key))
        link.raw.rpush("rq:queue:verify:local", copy.removeprefix(b"rq:job:"))
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    wait_until(lambda: queue.counts()["finished"] == 6, what="all six jobs done")
    assert is_promoted(store)
    assert verifier.metric("r3mes_promotions_total") == 1
    assert verifier.refused() == 0
    link.close()


def test_sigterm_while_idle_ends_it_at_once(store: Store, clean_redis: str, start_verifier: StartVerifier) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    assert verifier.terminate(STOP_SECONDS) == 0


def test_sigterm_with_redis_gone_ends_it_at_once(
    store: Store, own_redis: RedisServer, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, own_redis.url)
    verifier.wait_until_ready()
    own_redis.kill()
    wait_until(lambda: verifier.get("/readyz")[0] == 503, what="not ready without Redis")
    assert verifier.terminate(STOP_SECONDS) == 0


def test_sigterm_with_a_redis_that_hangs_ends_it_at_once(
    store: Store, own_redis: RedisServer, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, own_redis.url)
    verifier.wait_until_ready()
    with redis.Redis.from_url(own_redis.url) as client, stopped(own_redis):
        client.close()
        assert verifier.terminate(STOP_SECONDS) == 0


class stopped:  # noqa: N801 - reads as a state
    """A Redis that accepts connections and answers nothing (SIGSTOP)."""

    def __init__(self, server: RedisServer) -> None:
        assert server.pid is not None
        self._pid = server.pid

    def __enter__(self) -> None:
        subprocess.run(["kill", "-STOP", str(self._pid)], check=True)

    def __exit__(self, *_details: object) -> None:
        subprocess.run(["kill", "-CONT", str(self._pid)], check=True)


def test_a_start_without_redis_waits_and_recovers(
    store: Store, own_redis: RedisServer, start_verifier: StartVerifier
) -> None:
    own_redis.stop()
    verifier = start_verifier(store, own_redis.url)
    wait_until(lambda: "waiting for Redis" in verifier.log(), 30, "it says what it waits for")
    assert verifier.get("/readyz")[0] == 503
    own_redis.start()
    verifier.wait_until_ready()
    verify_again(store, verifier, own_redis.url)


def verify_again(store: Store, verifier: VerifierProcess, url: str) -> None:
    """Prove that jobs are done now, enqueueing until it is so, as the reconciler does."""
    store.put(SMALL_DIGEST, SMALL)
    link = RedisLink(url)
    queue = VerifyQueue(link, "local")

    def done() -> bool:
        if not store.layout.data(SMALL_DIGEST).exists():
            return True
        queue.enqueue(SMALL_DIGEST)
        return False

    wait_until(done, 60, f"a verdict; said {verifier.log()[-500:]}")
    assert is_promoted(store)
    # A job enqueued just when the first one ended finds nothing to do, unless it meets what a test does next.
    wait_until(lambda: not any(queue.counts()[status] for status in ("queued", "started")), 40, "an empty queue")
    link.close()


@pytest.mark.slow
def test_it_lives_through_a_redis_that_is_killed_restarted_and_emptied(
    store: Store, own_redis: RedisServer, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, own_redis.url)
    verifier.wait_until_ready()
    verify_again(store, verifier, own_redis.url)
    own_redis.kill()
    wait_until(lambda: verifier.metric("r3mes_redis_up") == 0, 20, "Redis is seen to be away")
    own_redis.start()
    verify_again(store, verifier, own_redis.url)
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    verify_again(store, verifier, own_redis.url)
    own_redis.restart()
    verify_again(store, verifier, own_redis.url)
    assert verifier.process.poll() is None
    assert verifier.terminate(STOP_SECONDS) == 0


BIG_BYTES = 1_000_000_000
BIG_DIGEST = sha256_of(b"a model that never comes")


@pytest.fixture
def big(tmp_path: Path) -> Store:
    """A store with a file that takes a second or more to copy; sparse, so that it costs no disk."""
    store = Store.make(tmp_path / "models", entry(BIG_DIGEST))
    store.put(BIG_DIGEST, b"")
    with store.layout.data(BIG_DIGEST).open("r+b") as file:
        file.truncate(BIG_BYTES)
    store.write_journal(BIG_DIGEST, size=BIG_BYTES)
    return store


@pytest.mark.slow
def test_sigterm_while_copying_ends_it_within_five_seconds_and_keeps_incoming(
    big: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(big, clean_redis)
    verifier.wait_until_ready()
    link = RedisLink(clean_redis)
    hints = RedisHints(link, "local")
    VerifyQueue(link, "local").enqueue(BIG_DIGEST)
    progress = wait_until(lambda: hints.read_verification(BIG_DIGEST), what="progress of the copy")
    assert progress.hashed_bytes < BIG_BYTES
    assert hints.read_copy_size(BIG_DIGEST) == BIG_BYTES
    assert verifier.terminate(STOP_SECONDS) == 0
    assert big.layout.data(BIG_DIGEST).exists()
    assert big.verified_names(BIG_DIGEST) == []
    link.close()


@pytest.mark.slow
def test_the_verdict_of_a_killed_worker_comes_within_a_minute(
    big: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(big, clean_redis)
    verifier.wait_until_ready()
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    queue.enqueue(BIG_DIGEST)
    wait_until(lambda: queue.counts()["started"] == 1, what="the job to start")
    verifier.kill()
    killed_at = time.monotonic()
    verifier.restart()
    assert not queue.enqueue(BIG_DIGEST), "a started job counts until nobody renewed it for a while"

    def rejected() -> bool:
        queue.enqueue(BIG_DIGEST)
        return any(big.layout.rejected.iterdir())

    wait_until(rejected, 60, "the verdict")
    assert time.monotonic() - killed_at < 60
    link.close()


@pytest.mark.parametrize(
    ("name", "setting"),
    [("R3MES_SCRUB_HORS", "24"), ("R3MES_SCRUB_HOURS", "0"), ("R3MES_RETAIN_HOURS", "0"), ("R3MES_RETAIN_HOURS", "-1")],
)
def test_an_unknown_or_impossible_setting_is_refused_by_name(
    store: Store, clean_redis: str, start_verifier: StartVerifier, name: str, setting: str
) -> None:
    verifier = start_verifier(store, clean_redis, **{name: setting})
    assert verifier.process.wait(30) == 78
    assert name in verifier.log()


@pytest.mark.slow
def test_a_model_that_left_the_genesis_is_removed_after_its_time_and_others_are_told(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis, R3MES_RETAIN_HOURS="0.0004")  # 1.44 s
    verifier.wait_until_ready()
    verify_again(store, verifier, clean_redis)
    link = RedisLink(clean_redis)
    with link.client.pubsub() as events:
        events.subscribe("r3mes:local:events")
        store.accept(entry(b"another", "another"))
        wait_until(lambda: not store.layout.verified_dir(SMALL_DIGEST).exists(), 20, "the removal")
        told = wait_until(lambda: _next_event(events, "verdict"), what="the others to be told")
    assert told["sha256"] == SMALL_DIGEST
    assert verifier.metric("r3mes_deletions_total", {"reason": "retention"}) == 1
    assert verifier.terminate(STOP_SECONDS) == 0
    link.close()


def test_a_store_without_an_accepted_genesis_is_refused(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    store.layout.accepted.unlink()
    verifier = start_verifier(store, clean_redis)
    assert verifier.process.wait(30) == 78
    assert "genesis accept" in verifier.log()


def test_a_newly_accepted_genesis_is_noticed_without_a_restart(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    new = os.urandom(1000)
    store.accept(entry(SMALL), entry(new, "newer"))
    store.put(sha256_of(new), new)
    link = RedisLink(clean_redis)
    VerifyQueue(link, "local").enqueue(sha256_of(new))
    wait_until(lambda: store.verified_names(sha256_of(new)) == ["newer.gguf", "receipt.json"], what="promotion")
    link.close()


def test_what_changed_while_it_was_down_is_found_at_the_start(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    verify_again(store, verifier, clean_redis)
    assert verifier.terminate(STOP_SECONDS) == 0
    file = store.layout.verified_file(SMALL_DIGEST, "tiny.gguf")
    file.chmod(0o644)
    file.write_bytes(SMALL[:-1] + b"?")
    orphan = store.layout.partial / f"{SMALL_DIGEST}.{'0' * 16}"
    orphan.write_bytes(b"left by a crash")
    verifier.restart()
    verifier.wait_until_ready()
    assert store.wrong_verified_files() == []
    assert not file.exists()
    assert not orphan.exists()
    assert verifier.metric("r3mes_deletions_total", {"reason": "tampered"}) == 1
    assert verifier.metric("r3mes_deletions_total", {"reason": "orphan"}) == 1


def test_a_scrub_finds_bytes_that_changed_behind_a_right_receipt(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis, R3MES_SCRUB_HOURS="0.0001")
    verifier.wait_until_ready()
    verify_again(store, verifier, clean_redis)
    wait_until(lambda: verifier.metric("r3mes_scrub_files_total", {"result": "match"}) >= 1, what="a scrub")
    file = store.layout.verified_file(SMALL_DIGEST, "tiny.gguf")
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.write(b"rotten")
    wait_until(lambda: not file.exists(), what="the quarantine")
    wait_until(lambda: verifier.metric("r3mes_scrub_files_total", {"result": "mismatch"}) == 1, what="the count")
