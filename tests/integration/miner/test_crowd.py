"""Five hundred clients at once, and room for eighty: each gets an answer or a 429, soon, and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import openai
import pytest

from tests.integration.miner.stand import MODEL_NAME, Miner, Store
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLIENTS, RUNNING, WAITING = 500, 16, 64
REFUSED_WITHIN, ANSWERED_WITHIN = 60.0, 400.0  # seconds, on two cores that do other things as well


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client got, after so many seconds."""

    status: int
    seconds: float
    retry_after: str | None = None


def client_of(miner: Miner) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{miner.url}/v1", api_key="none", max_retries=0, timeout=ANSWERED_WITHIN)


async def crowd(miner: Miner) -> list[Outcome]:
    async with client_of(miner) as client:

        async def ask(number: int) -> Outcome:
            begun = time.perf_counter()
            try:
                await client.chat.completions.create(
                    model=MODEL_NAME, messages=[{"role": "user", "content": f"Say {number}."}], max_tokens=8
                )
            except openai.APIStatusError as error:
                headers = error.response.headers
                return Outcome(error.status_code, time.perf_counter() - begun, headers.get("Retry-After"))
            return Outcome(200, time.perf_counter() - begun)

        return list(await asyncio.gather(*map(ask, range(CLIENTS))))


def test_everybody_of_a_crowd_gets_an_answer_or_a_429_in_bounded_time(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_MAX_SEQUENCES": str(RUNNING), "R3MES_MAX_QUEUE": str(WAITING)}) as miner:
        miner.wait_ready()
        outcomes = asyncio.run(crowd(miner))
        statuses = Counter(outcome.status for outcome in outcomes)
        refused = [outcome for outcome in outcomes if outcome.status == 429]
        assert set(statuses) == {200, 429}
        assert statuses[200] >= RUNNING + WAITING, "the queue was not filled"
        assert all(outcome.retry_after for outcome in refused)
        assert max(outcome.seconds for outcome in refused) < REFUSED_WITHIN
        assert max(outcome.seconds for outcome in outcomes) < ANSWERED_WITHIN
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 30, "nothing runs")
        assert miner.metric("r3mes_miner_requests_waiting") == 0
        assert miner.metric("r3mes_miner_engine_restarts_total") == 0
        assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="busy") == len(refused)
        assert miner.chat(max_tokens=4).status_code == 200


async def load_and_stop(miner: Miner) -> list[str]:
    """Ask twelve questions, stop the miner while it answers, and return how each ended."""
    async with client_of(miner) as client:

        async def ask(number: int) -> str:
            finish = ""
            stream = await client.chat.completions.create(
                model=MODEL_NAME,
                messages=[{"role": "user", "content": f"Count to {number}."}],
                max_tokens=40,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for chunk in stream:
                finish = chunk.choices[0].finish_reason or finish
            return finish

        def taken_in() -> float:
            return miner.metric("r3mes_miner_requests_running") + miner.metric("r3mes_miner_requests_waiting")

        asking = [asyncio.create_task(ask(number)) for number in range(12)]
        await asyncio.to_thread(wait_until, lambda: taken_in() >= 12, 60, "all to be taken in")
        miner.terminate()
        return list(await asyncio.gather(*asking))


def test_a_drain_under_load_loses_no_answer(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_DRAIN_SECONDS": "240", "R3MES_MAX_SEQUENCES": "4"}) as miner:
        miner.wait_ready()
        assert asyncio.run(load_and_stop(miner)) == ["length"] * 12, "those that ran and those that waited"
        assert miner.exit_code(60) == 0
