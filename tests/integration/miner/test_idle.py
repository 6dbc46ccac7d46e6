"""A model that nobody asks for leaves memory, and comes back for the next request, which waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.miner.stand import MODEL_NAME, Miner, Store
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOON = {"R3MES_IDLE_UNLOAD_SECONDS": "1"}


def wait_unloaded(miner: Miner) -> None:
    wait_until(lambda: miner.readiness()["state"] == "unloaded", 60, "the model is unloaded")
    wait_until(lambda: not miner.engines(), 30, "its engine is gone")


def test_after_a_while_without_requests_the_engine_is_gone_and_the_miner_still_ready(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        wait_unloaded(miner)
        assert miner.get("/readyz").status_code == 200
        (model,) = miner.get("/v1/models").json()["data"]
        assert model["id"] == MODEL_NAME
        assert model["r3mes"]["loaded"] is False
        assert miner.chat("x", model="other").status_code == 404
        assert miner.engines() == [], "neither of them woke it"


def test_the_next_requests_wait_until_it_is_loaded_again_once(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        for turn in (1, 2):
            wait_unloaded(miner)
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda number: miner.chat(f"What is {number}?"), range(4)))
            assert [answer.status_code for answer in answers] == [200] * 4
            assert miner.metric("r3mes_miner_model_load_seconds_count") == 1 + turn
        assert miner.metric("r3mes_miner_engine_restarts_total") == 0


def test_even_a_model_that_is_unloaded_at_once_answers_everybody(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_IDLE_UNLOAD_SECONDS": "0"}) as miner, ThreadPoolExecutor(3) as pool:
        wait_unloaded(miner)
        answers = list(pool.map(lambda number: miner.chat(f"What is {number}?", max_tokens=2), range(30)))
        assert [answer.status_code for answer in answers] == [200] * 30
        wait_unloaded(miner)


def test_a_running_answer_keeps_the_model_loaded(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        answer = miner.chat("Tell me a story.", max_tokens=400, ignore_eos=True)
        assert answer.json()["usage"]["completion_tokens"] == 400
        assert miner.metric("r3mes_miner_model_load_seconds_count") == 1


def test_a_file_that_goes_while_nothing_is_loaded_is_noticed(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        wait_unloaded(miner)
        store.quarantine()
        miner.wait_not_ready("not verified yet")
        assert miner.chat("x").status_code == 503
        store.put_model()
        miner.wait_ready()


def test_a_miner_that_sleeps_stops_at_once(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        wait_unloaded(miner)
        miner.terminate()
        assert miner.exit_code(10) == 0


def test_a_request_that_wakes_a_miner_that_stops_gets_an_answer(store: Store) -> None:
    store.put_model()
    with Miner(store, SOON) as miner:
        miner.wait_ready()
        wait_unloaded(miner)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(miner.chat, "What is gravity?")
            wait_until(lambda: miner.readiness()["state"] != "unloaded", 30, "it wakes")
            miner.terminate()
            assert asked.result().status_code in (200, 503)
        assert miner.exit_code() == 0
