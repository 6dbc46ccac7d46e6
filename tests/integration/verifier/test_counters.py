"""The verifier's counters are true: each job of RQ counts once, in whatever life, and no life leaves a series or file.

RQ's worker runs jobs in this process and forks nothing (shared/queue/worker.py), so the counters need no files that
several processes share. A life begins at 0, as Prometheus expects of a process that was started again.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from rq.registry import FinishedJobRegistry

from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from tests.support.scraped import scraped, went_back
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODELS = [os.urandom(2_000) for _ in range(40)]
LIVES = 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", *(entry(model, f"model-{at}") for at, model in enumerate(MODELS)))


def files_of(directory: Path) -> set[Path]:
    """Every file that is no model's and no log."""
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file() and path.suffix != ".gguf"}


def verify_each(store: Store, queue: VerifyQueue, models: list[bytes], wrong: int) -> None:
    """Ask for each of these, the first `wrong` of them with other bytes than are pinned, and wait for every verdict."""
    digests = [sha256_of(model) for model in models]
    for at, (digest, model) in enumerate(zip(digests, models, strict=True)):
        store.put(digest, model[::-1] if at < wrong else model)
        assert queue.enqueue(digest)
    wait_until(lambda: not any(store.layout.data(digest).exists() for digest in digests), 60, "every verdict")
    wait_until(lambda: not queue.counts()["queued"] + queue.counts()["started"], 30, "an empty queue")


def counted(verifier: VerifierProcess, name: str, **labels: str) -> float:
    return verifier.metric(name, labels)


def test_every_job_counts_once_in_one_of_several_lives(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    verifier = start_verifier(store, clean_redis)
    share, wrong = len(MODELS) // LIVES, 2
    series, totals, starts, pids = set(), {"match": 0.0, "mismatch": 0.0}, set(), set()
    for life in range(LIVES):
        verifier.wait_until_ready()
        begun = scraped(verifier.get("/metrics")[1])
        assert counted(verifier, "r3mes_verifications_total", result="match") == 0, "a life begins at 0"
        verify_each(store, queue, MODELS[life * share : (life + 1) * share], wrong)
        assert counted(verifier, "r3mes_verifications_total", result="match") == share - wrong
        assert counted(verifier, "r3mes_verifications_total", result="mismatch") == wrong
        assert counted(verifier, "r3mes_verification_duration_seconds_count") == share
        assert counted(verifier, "r3mes_promotions_total") == share - wrong
        assert counted(verifier, "r3mes_deletions_total", reason="mismatch") == wrong
        for result in totals:
            totals[result] += counted(verifier, "r3mes_verifications_total", result=result)
        ended = scraped(verifier.get("/metrics")[1])
        assert went_back(begun, ended) == []
        series.add(frozenset(ended))
        starts.add(counted(verifier, "process_start_time_seconds"))
        pids.add(verifier.process.pid)
        assert psutil.Process(verifier.process.pid).children(recursive=True) == [], "no job is left in a fork"
        if life % 2:
            verifier.kill()
        else:
            assert verifier.terminate() == 0
        if life + 1 < LIVES:
            verifier.restart()
    assert len(starts) == len(pids) == LIVES, "each life is a process of its own, and Prometheus can tell"
    assert len(series) == 1, "no life leaves or brings a series"
    assert totals == {"match": len(MODELS) - LIVES * wrong, "mismatch": LIVES * wrong}
    finished = FinishedJobRegistry("verify:local", connection=link.raw).get_job_count(cleanup=False)
    assert sum(totals.values()) == finished == len(MODELS), "what RQ counts"
    link.close()


def test_hundreds_of_jobs_leave_no_series_no_process_and_no_file_but_the_store_s(
    store: Store, clean_redis: str, start_verifier: StartVerifier, tmp_path: Path
) -> None:
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    verify_each(store, queue, MODELS, 0)
    before, files = scraped(verifier.get("/metrics")[1]), files_of(tmp_path)
    for turn in range(10):
        verify_each(store, queue, MODELS, 0)
        link.raw.rpush("rq:queue:verify:local", f"os.system-{turn}", f"verify-local_{turn:064x}_1")
    wait_until(lambda: verifier.refused() == 20, 30, "the forged jobs to be refused")
    after = scraped(verifier.get("/metrics")[1])
    assert set(after) == set(before)
    assert went_back(before, after) == []
    assert files_of(tmp_path) == files
    assert after[("process_open_fds", frozenset())] <= before[("process_open_fds", frozenset())] + 4
    link.close()


def test_a_stop_in_the_middle_counts_what_had_ended(
    store: Store, clean_redis: str, start_verifier: StartVerifier
) -> None:
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    for model in MODELS:
        store.put(sha256_of(model), model)
        queue.enqueue(sha256_of(model))

    def some() -> float:
        return verifier.metric("r3mes_verifications_total", {"result": "match"})

    wait_until(some, 30, "the first verdicts")
    verifier.send(signal.SIGSTOP)
    held = sum(bool(store.verified_names(sha256_of(model))) for model in MODELS)
    verifier.send(signal.SIGCONT)
    told = wait_until(some, 10, "an answer")
    assert told + 1 >= held, "what is promoted is counted, but for the one under way"
    assert verifier.terminate() == 0
    link.close()
