"""A real engine, killed at moments of the test's choice: who gets an error, who another engine, who is refused."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.miner.engine.flight import Work
from tests.integration.miner.crashing import (
    BLAMED,
    IMPATIENT,
    LONG,
    POISON,
    assert_refused,
    assert_sound,
    crash_idle,
    die,
    engine_of,
    runs,
)
from tests.integration.miner.stand import Miner, Store, events
from tests.support.engine_flight import decodes, stop_while
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("with_signal", "work"), [(signal.SIGKILL, Work.DECODING), (signal.SIGSEGV, Work.SAMPLING)], ids=["kill", "segv"]
)
def test_a_request_that_the_engine_dies_for_alone_is_refused_when_it_comes_again(
    store: Store, with_signal: signal.Signals, work: Work
) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(1) as pool:
        miner.wait_ready()
        whole = pool.submit(miner.chat, POISON, **LONG)
        engine = engine_of(miner)
        stop_while(engine, lambda flight: flight.work is work and len(flight.request_ids) == 1)
        die(engine, with_signal)
        assert_refused(whole.result())
        assert_sound(miner, restarts=1)
        assert_refused(miner.chat(POISON, **LONG))
        assert_refused(miner.chat(POISON, stream=True, **LONG))
        assert miner.chat(POISON, max_tokens=5).status_code == 200  # another request
        assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="invalid") == 3


def test_requests_that_wait_or_show_nothing_yet_get_the_next_engine(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_MAX_SEQUENCES": "1"}) as miner, ThreadPoolExecutor(3) as pool:
        miner.wait_ready()
        streamed = miner.chat(POISON, stream=True, **LONG)
        waiting = [pool.submit(miner.chat, f"Tell me {number} things.", max_tokens=4) for number in (2, 3, 4)]
        wait_until(runs(miner, 1, 3), 30, "one runs and three wait")
        engine = engine_of(miner)
        stop_while(engine, decodes(1))
        die(engine, signal.SIGSEGV)
        assert events(streamed)[-1]["error"]["code"] == BLAMED
        for answer in waiting:
            response = answer.result()
            assert response.status_code == 200
            assert response.json()["usage"]["completion_tokens"] == 4
        assert_sound(miner, restarts=1)
        assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="ok") == 4


def test_three_deaths_while_idle_open_the_breaker_which_tries_again_and_closes(store: Store) -> None:
    store.put_model()
    with Miner(store, module=IMPATIENT) as miner:
        for _ in range(3):
            miner.wait_ready()
            crash_idle(miner)
        readiness = miner.wait_not_ready("gave up for 3 s after 3 crashes with no request to blame")
        assert readiness["state"] == "failed"
        assert "the engine died between two steps (killed by signal 11)" in readiness["reason"]
        assert miner.engines() == []
        assert miner.chat("What is gravity?").status_code == 503
        miner.wait_ready()  # the back-off is over
        crash_idle(miner)
        miner.wait_not_ready("gave up for 6 s")
        assert_sound(miner, restarts=4)


def test_an_engine_that_is_stuck_is_killed_and_started_again(store: Store) -> None:
    store.put_model()
    with Miner(store, module=IMPATIENT) as miner, ThreadPoolExecutor(2) as pool:
        miner.wait_ready()
        answers = [pool.submit(miner.chat, f"Tell me {number} stories.", **LONG) for number in (2, 3)]
        stop_while(engine_of(miner), decodes(2))
        assert [answer.result().status_code for answer in answers] == [503, 503]
        assert_sound(miner, restarts=1)
        assert "the engine died in a decode (stuck)" in miner.log.read_text()
