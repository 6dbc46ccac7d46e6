"""A real engine, killed at moments of the test's choice: who gets an error, who another engine, who is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest
import requests

from services.miner.engine.flight import Flight, Work
from tests.integration.miner.stand import Miner, Store, events
from tests.support.engine_flight import decodes, idle, stop_while
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = {"max_tokens": 2000, "ignore_eos": True}
POISON = "Tell me a story about a king."
BLAMED = "request_crashes_engine"


def die(engine: psutil.Process, with_signal: signal.Signals) -> None:
    """Let a stopped engine die by a signal that it would get from the kernel or from a person."""
    engine.send_signal(with_signal)
    engine.resume() if with_signal is not signal.SIGKILL else None


def engine_of(miner: Miner) -> psutil.Process:
    (engine,) = miner.engines()
    return engine


def runs(miner: Miner, running: int, waiting: int = 0) -> Callable[[], bool]:
    def look() -> bool:
        assert miner.metric("r3mes_miner_requests_running") == running
        assert miner.metric("r3mes_miner_requests_waiting") == waiting
        return True

    return look


def assert_refused(response: requests.Response) -> None:
    assert response.status_code == 422
    assert response.json()["error"]["code"] == BLAMED
    assert 0 < int(response.headers["Retry-After"]) <= 600


def assert_sound(miner: Miner, restarts: int) -> None:
    """Others are served, and nothing of the dead is left."""
    miner.wait_ready()
    assert miner.metric("r3mes_miner_engine_restarts_total") == restarts
    assert miner.chat("What is gravity?").status_code == 200
    wait_until(runs(miner, 0), 30, "nothing runs")
    assert len(miner.engines()) == 1


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("work", [Work.DECODING, Work.SAMPLING])
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


def test_of_two_in_one_decode_neither_is_refused_and_the_one_of_the_next_crash_is(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(3) as pool:
        miner.wait_ready()

        def crash_of(*texts: str) -> list[requests.Response]:
            answers = [pool.submit(miner.chat, text, **LONG) for text in texts]
            engine = engine_of(miner)
            stop_while(engine, decodes(len(texts)))
            die(engine, signal.SIGSEGV)
            return [answer.result() for answer in answers]

        for response in crash_of(POISON, "Tell me about bread."):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "service_unavailable"
            assert "Retry-After" in response.headers
        miner.wait_ready()
        again, other = crash_of(POISON, "Tell me about wine.")
        assert_refused(again)
        assert other.status_code == 503
        assert_sound(miner, restarts=2)
        assert_refused(miner.chat(POISON, **LONG))
        for text in ("Tell me about bread.", "Tell me about wine."):
            with miner.chat(text, stream=True, **LONG) as stream:
                assert stream.status_code == 200


def test_a_suspect_that_is_answered_is_none_any_more(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(2) as pool:
        miner.wait_ready()
        short = {"max_tokens": 60, "ignore_eos": True}
        for restarts in (1, 2):
            pair = [pool.submit(miner.chat, text, **short) for text in (POISON, f"Tell me {restarts} things.")]
            engine = engine_of(miner)
            stop_while(engine, decodes(2))
            die(engine, signal.SIGKILL)
            assert [answer.result().status_code for answer in pair] == [503, 503]
            miner.wait_ready()
            assert miner.chat(POISON, **short).status_code == 200
        assert_sound(miner, restarts=2)


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


def test_a_prompt_that_the_engine_dies_for_is_blamed_and_the_streams_beside_it_are_not(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(1) as pool:
        miner.wait_ready()
        prompt = pool.submit(miner.chat, "word " * 1500, max_tokens=5)
        engine = engine_of(miner)
        stop_while(engine, decodes(1))  # its prefill: nothing else runs
        die(engine, signal.SIGKILL)
        assert_refused(prompt.result())
        assert_sound(miner, restarts=1)


def test_a_request_that_was_closed_is_blamed_all_the_same_and_its_neighbour_is_not(store: Store) -> None:
    """The engine hears of a disconnect only after the step; until then the request is there."""
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(1) as pool:
        miner.wait_ready()
        streamed = miner.chat(POISON, stream=True, **LONG)
        neighbour = pool.submit(miner.chat, "Tell me about bread.", **LONG)
        wait_until(runs(miner, 2), 30, "both run")
        engine = engine_of(miner)
        stop_while(engine, decodes(2))
        cancelled = miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled")
        streamed.close()
        wait_until(
            lambda: miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled") > cancelled,
            10,
            "the miner sees that the client left",
        )
        die(engine, signal.SIGKILL)
        assert neighbour.result().status_code == 503  # one of two, not one alone
        assert_sound(miner, restarts=1)


def crash_idle(miner: Miner) -> None:
    engine = engine_of(miner)
    stop_while(engine, idle)
    die(engine, signal.SIGSEGV)
    engine.wait(10)


IMPATIENT = "tests.support.impatient_miner"


def test_three_deaths_while_idle_open_the_breaker_which_tries_again_and_closes(store: Store) -> None:
    store.put_model()
    with Miner(store, module=IMPATIENT) as miner:
        for _ in range(3):
            miner.wait_ready()
            crash_idle(miner)
        readiness = miner.wait_not_ready("gave up for 3 s after 3 crashes with no request to blame")
        assert readiness["state"] == "failed"
        assert "the engine died while between two steps (killed by signal 11)" in readiness["reason"]
        assert miner.engines() == []
        assert miner.chat("What is gravity?").status_code == 503
        miner.wait_ready()  # the back-off is over
        crash_idle(miner)
        miner.wait_not_ready("gave up for 6 s")
        assert_sound(miner, restarts=5)


def test_another_file_closes_the_breaker_before_the_back_off_is_over(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        for _ in range(3):
            miner.wait_ready()
            crash_idle(miner)
        miner.wait_not_ready("gave up for 60 s")
        store.quarantine()
        store.put_model()
        miner.wait_ready(30)
        crash_idle(miner)
        miner.wait_ready(30)


def test_requests_are_told_when_no_engine_comes(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_MAX_SEQUENCES": "1"}, module=IMPATIENT) as miner, ThreadPoolExecutor(1) as pool:
        miner.wait_ready()
        streamed = miner.chat(POISON, stream=True, **LONG)
        waiting: Future[requests.Response] = pool.submit(miner.chat, "Tell me 2 things.", max_tokens=4)
        wait_until(runs(miner, 1, 1), 30, "one runs and one waits")
        engine = engine_of(miner)
        stop_while(engine, decodes(1))
        store.quarantine()
        die(engine, signal.SIGKILL)
        assert "error" in events(streamed)[-1]
        assert waiting.result().status_code == 503


@pytest.mark.parametrize("streams", [1, 2])
def test_an_engine_that_is_stuck_is_killed_and_started_again(store: Store, streams: int) -> None:
    store.put_model()
    with Miner(store, module=IMPATIENT) as miner, ThreadPoolExecutor(2) as pool:
        miner.wait_ready()
        answers = [pool.submit(miner.chat, f"Tell me {number} stories.", **LONG) for number in range(streams)]
        engine = engine_of(miner)
        flight: Flight = stop_while(engine, decodes(streams))
        assert len(flight.request_ids) == streams
        engine.wait(60)
        expected = 422 if streams == 1 else 503
        assert [answer.result().status_code for answer in answers] == [expected] * streams
        assert_sound(miner, restarts=1)
        assert "the engine died while decoding (stuck)" in miner.log.read_text()
