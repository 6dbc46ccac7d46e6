"""Whoever may write to Redis pushes forged jobs at the real verifier: nothing runs, each is counted, work goes on."""

import json
import os
import pickle
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from shared.queue import FUNCTION, VerifyQueue
from shared.redis_link import RedisLink
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

CONTENT = os.urandom(10_000)
DIGEST = sha256_of(CONTENT)
QUEUE_KEY = "rq:queue:verify:local"
RIGHT_CALL = [FUNCTION, None, [DIGEST], {}]


class Touch:
    """A pickle that runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._marker}",)


def packed(call: object) -> bytes:
    return zlib.compress(json.dumps(call).encode())


def job(data: bytes, **changes: bytes | str) -> dict[str, bytes | str]:
    """The hash that RQ would have written, with `changes`."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "created_at": now,
        "enqueued_at": now,
        "data": data,
        "origin": "verify:local",
        "description": "verify",
        "status": "queued",
        "timeout": "-1",
        "result_ttl": "600",
        "success_callback_name": "",
        "failure_callback_name": "",
        "stopped_callback_name": "",
        "started_at": "",
        "ended_at": "",
        "last_heartbeat": "",
        "worker_name": "",
        "group_id": "",
        **changes,
    }


def forgeries(marker: Path) -> dict[str, tuple[str, Mapping[str, bytes | str]]]:
    """Each forged job by what it tries: its id and its hash."""
    touch = f"touch {marker}"
    good_id = f"verify-local_{DIGEST}_{{}}"
    right = packed(RIGHT_CALL)
    bomb = zlib.compress(b'["' + b"A" * 200_000_000)
    jobs = {
        "os.system": job(packed(["os.system", None, [touch], {}])),
        "os.system with our digest": job(packed(["os.system", None, [DIGEST], {}])),
        "another function of ours": job(packed(["services.verifier.job.set_verifier", None, [DIGEST], {}])),
        "an instance": job(packed([FUNCTION, "os.system", [DIGEST], {}])),
        "a keyword": job(packed([FUNCTION, None, [DIGEST], {"x": touch}])),
        "two arguments": job(packed([FUNCTION, None, [DIGEST, touch], {}])),
        "no argument": job(packed([FUNCTION, None, [], {}])),
        "63 digits": job(packed([FUNCTION, None, [DIGEST[:-1]], {}])),
        "65 digits": job(packed([FUNCTION, None, [DIGEST + "0"], {}])),
        "upper case": job(packed([FUNCTION, None, [DIGEST.upper()], {}])),
        "a path": job(packed([FUNCTION, None, [f"../../{DIGEST}"], {}])),
        "another digest than its id": job(packed([FUNCTION, None, [sha256_of(b"other")], {}])),
        "not a list": job(packed({"func": "os.system"})),
        "not JSON": job(zlib.compress(b"os.system")),
        "deep JSON": job(zlib.compress(b"[" * 200_000)),
        "not packed": job(json.dumps(RIGHT_CALL).encode()),
        "packed with a tail": job(right + b"tail"),
        "cut off": job(right[:-4]),
        "empty": job(b""),
        "a bomb": job(bomb),
        "a pickle": job(zlib.compress(pickle.dumps(Touch(marker)))),
        "a raw pickle": job(pickle.dumps(Touch(marker))),
        "a pickled result": job(right, result=pickle.dumps(Touch(marker))),
        "pickled meta": job(right, meta=pickle.dumps(Touch(marker))),
        "a bomb as its traceback": job(right, exc_info=bomb),
        "a success callback": job(right, success_callback_name="os.system"),
        "a failure callback": job(right, failure_callback_name="os.system"),
        "a stopped callback": job(right, stopped_callback_name="os.system"),
        "a webhook": job(right, webhooks=json.dumps([{"url": "http://127.0.0.1:1/", "job_status": "finished"}])),
        "a dependency": job(right, dependency_ids=json.dumps([good_id.format(1)])),
        "a repeat": job(right, repeats_left="9", repeat_intervals="[0]"),
        "a retry": job(right, retries_left="9", retry_intervals="[0]"),
        "a rate limit": job(right, rate_limit_key="x", rate_limit_concurrency="1"),
        "a group": job(right, group_id="x"),
        "an unknown field": job(right, command="x"),
        "another queue": job(right, origin="verify:other"),
        "a date that is none": job(right, created_at="yesterday"),
        "a status that is none": job(right, status="x"),
        "a number that is none": job(right, result_ttl="x"),
        "a huge description": job(right, description="x" * 1_000_000),
    }
    numbered = {what: (good_id.format(number), fields) for number, (what, fields) in enumerate(jobs.items(), start=1)}
    return numbered | {
        "an id with 63 digits": (f"verify-local_{DIGEST[:-1]}_1", job(right)),
        "an id with a path": (f"../verify-local_{DIGEST}_1", job(right)),
        "another node's id": (f"verify-other_{DIGEST}_1", job(right, origin="verify:other")),
        "an id of RQ's own making": ("0f1cbb26-7b8d-4f3c-8e3a-8a0c3a3f8a11", job(right)),
        "an execution's id": (f"verify-local_{DIGEST}_1:{'0' * 32}", job(right)),
        "an empty id": ("", job(right)),
    }


WHATS = tuple(forgeries(Path("/nonexistent")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(CONTENT))


@pytest.fixture
def verifier(store: Store, clean_redis: str, start_verifier: StartVerifier) -> VerifierProcess:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    return verifier


def test_no_forged_job_runs_and_each_is_counted(
    store: Store, verifier: VerifierProcess, clean_redis: str, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    with redis.Redis.from_url(clean_redis) as client:
        for what, (job_id, fields) in forgeries(marker).items():
            before = verifier.refused()
            client.hset(f"rq:job:{job_id}", mapping=dict(fields))
            client.rpush(QUEUE_KEY, job_id)
            wait_until(lambda before=before: verifier.refused() == before + 1, what=f"{what} to be refused")
        assert verifier.refused() == len(WHATS)
        assert client.llen(QUEUE_KEY) == 0
        assert client.llen(f"{QUEUE_KEY}:intermediate") == 0
    assert not marker.exists()
    assert_still_works(store, verifier, clean_redis)


def test_ids_that_are_not_text_jobs_that_are_not_hashes_and_jobs_that_are_not_there_are_refused(
    store: Store, verifier: VerifierProcess, clean_redis: str
) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        client.set(f"rq:job:verify-local_{DIGEST}_1", "a string")
        client.rpush(QUEUE_KEY, b"\xff\xfe\x00", f"verify-local_{DIGEST}_1", f"verify-local_{DIGEST}_2")
        wait_until(lambda: verifier.refused() == 3, what="three refusals")
    assert_still_works(store, verifier, clean_redis)


def test_what_hangs_on_a_right_job_from_outside_is_not_followed(
    store: Store, verifier: VerifierProcess, clean_redis: str, tmp_path: Path
) -> None:
    """Dependents stand under a key of their own, which whoever may write the job may write."""
    marker = tmp_path / "ran"
    right_id, dependent_id = f"verify-local_{DIGEST}_1", f"verify-local_{DIGEST}_2"
    with redis.Redis.from_url(clean_redis) as client:
        client.hset(f"rq:job:{dependent_id}", mapping=job(packed(["os.system", None, [f"touch {marker}"], {}])))
        client.sadd(f"rq:job:{right_id}:dependents", dependent_id)
        client.hset(f"rq:job:{right_id}", mapping=job(packed(RIGHT_CALL)))
        store.put(DIGEST, CONTENT)
        client.rpush(QUEUE_KEY, right_id)
        assert verifier.refused() == 0
        wait_until(lambda: client.hget(f"rq:job:{right_id}", "status") == b"finished", what="the right job to finish")
    assert not marker.exists()
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]


def test_no_command_of_rq_stops_kills_or_suspends_the_worker(
    store: Store, verifier: VerifierProcess, clean_redis: str
) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        names = [key.decode().removeprefix("rq:worker:") for key in client.smembers("rq:workers")]
        assert len(names) == 1
        for command in ("shutdown", "kill-horse", "stop-job"):
            heard = client.publish(f"rq:pubsub:{names[0]}", json.dumps({"command": command, "job_id": "x"}))
            assert heard == 0, "the worker listens to commands"
        client.set("rq:suspended", 1)
    assert_still_works(store, verifier, clean_redis)


def assert_still_works(store: Store, verifier: VerifierProcess, url: str) -> None:
    store.put(DIGEST, CONTENT)
    link = RedisLink(url)
    VerifyQueue(link, "local").enqueue(DIGEST)
    wait_until(lambda: store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"], what="a right job to be done")
    assert verifier.process.poll() is None
    link.close()
