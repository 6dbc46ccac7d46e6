"""More deaths of a real engine, beside the telling few of `tests/integration/miner/test_crashes.py`."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import requests

from tests.integration.miner.crashing import (
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

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


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


def test_a_prompt_that_the_engine_dies_for_is_blamed(store: Store) -> None:
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
