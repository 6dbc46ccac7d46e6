"""Minutes of mixed load with clients that leave and an engine that is killed: nothing leaks, nobody waits for ever.

`SOAK_MINUTES` says how long (`make soak`: 30); the figures of each round go to `build/soak.log` too.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
import uuid
from pathlib import Path

import httpx2
import pytest

from tests.integration.miner.stand import Miner, Store
from tests.support.soak_client import Ending, describe, send
from tests.support.soak_figures import History, Tally, look, marked, undeserved
from tests.support.soak_requests import Ask, any_ask, control, short_ask
from tests.support.waiting import wait_until

MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
SEED = os.environ.get("SOAK_SEED", "16")
LOG = Path("build/soak.log")

ROUND_SECONDS = min(60.0, MINUTES * 60 / 3)
REQUEST_SECONDS = 30.0
STUCK_SECONDS = REQUEST_SECONDS + 15  # a busy machine may be late, but not by that
AGAIN_SECONDS = 0.3  # how long a refused client waits; less than it is told, so that refusals occur under load
BURST = 24  # more than run and wait together
CLIENTS = (8, 14, 4)  # of the first round, the second, the third, and again
LONG_LIFE = range(9, 15)  # rounds without a crash: one engine lives long enough for a slow leak to show
# Fewer cells than the running sequences and the shared prefixes want: some are evicted, some preempted.
SETTINGS = {
    "R3MES_N_CTX": "512",
    "R3MES_MAX_SEQUENCES": "6",
    "R3MES_MAX_QUEUE": "12",
    "R3MES_PREFIX_CACHE_BYTES": str(8 * 1024**2),  # soon full, so that memory stays flat
    "R3MES_REQUEST_SECONDS": str(REQUEST_SECONDS),
}

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(MINUTES * 120 + 300)]


def test_under_load_with_leavers_and_crashes_nothing_leaks_and_no_request_is_stuck(store: Store) -> None:
    store.put_model()
    marker = f"SOAK_{uuid.uuid4().hex}"
    with Miner(store, {**SETTINGS, marker: "1"}) as miner:
        miner.wait_ready()
        soak = Soak(miner, marker)
        asyncio.run(soak.run())
        for line in (str(soak.tally), *soak.history.lives()):
            soak.say(line)
        assert soak.problems == []
        assert miner.metric("r3mes_miner_prefix_cache_hit_tokens_total") > 0
        assert miner.metric("r3mes_miner_preemptions_total") > 0 or MINUTES < 5
        miner.terminate()
        assert miner.exit_code() == 0
        wait_until(lambda: not marked(marker), 10, "no process is left")


class Soak:
    """Rounds of load, each followed by a look at a miner that has nothing to do."""

    def __init__(self, miner: Miner, marker: str) -> None:
        self.miner = miner
        self.tally = Tally()
        self.history = History()
        self.problems: list[str] = []  # told at once, and the soak goes on: half an hour should find more than one
        self._marker = marker
        self._crashes = 0
        self._started = time.monotonic()
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text(f"soak of {MINUTES:g} minutes, seed {SEED}, {SETTINGS}\n")

    async def run(self) -> None:
        number = 0
        while number < 3 or time.monotonic() - self._started < MINUTES * 60:
            crash = number % 2 == 1 and number not in LONG_LIFE
            endings = await self._round(number, crash=crash)
            for problem in undeserved(endings, crashed=crash):
                self._complain(problem)
            try:
                await self._look(number, len(endings))
            except AssertionError as error:
                self._complain(str(error))
            number += 1

    def say(self, line: str) -> None:
        with LOG.open("a") as log:
            log.write(line + "\n")
        print(line, flush=True)  # noqa: T201  (a person who runs a soak wants to see how it goes)

    def _complain(self, problem: str) -> None:
        self.problems.append(problem)
        self.say(f"PROBLEM: {problem}")

    async def _round(self, number: int, *, crash: bool) -> list[Ending]:
        until = time.monotonic() + ROUND_SECONDS
        endings: list[Ending] = []
        # A connection that the miner closes while a request goes out on it would be nobody's fault.
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=2)
        async with (
            httpx2.AsyncClient(base_url=self.miner.url, timeout=None, limits=limits, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):
            for client in range(CLIENTS[number % len(CLIENTS)]):
                group.create_task(self._client(http, seeded(number, client), until, endings))
            if crash:
                group.create_task(self._crash(seeded(number)))
        return endings

    async def _client(self, http: httpx2.AsyncClient, rng: random.Random, until: float, endings: list[Ending]) -> None:
        while time.monotonic() < until:
            burst = rng.random() < 0.02
            asks = [short_ask(rng) for _ in range(BURST)] if burst else [any_ask(rng)]
            ended = [each for each in await asyncio.gather(*(self._send(http, ask) for ask in asks)) if each]
            endings += ended
            if any(ending.status in (422, 429, 503) for ending in ended):
                await asyncio.sleep(AGAIN_SECONDS)

    async def _send(self, http: httpx2.AsyncClient, ask: Ask) -> Ending | None:
        try:
            ending = await send(http, ask, STUCK_SECONDS)
        except (AssertionError, httpx2.HTTPError, json.JSONDecodeError) as error:
            self._complain(f"{error!r}: {describe(ask)}")
            return None
        self.tally.add(ending)
        return ending

    async def _crash(self, rng: random.Random) -> None:
        await asyncio.sleep(ROUND_SECONDS * rng.uniform(0.2, 0.6))  # any moment will do
        (engine,) = self.miner.engines()
        self._crashes += 1
        engine.send_signal(rng.choice((signal.SIGKILL, signal.SIGSEGV)))

    async def _look(self, number: int, requests: int) -> None:
        """Wait until all is quiet, and hold that nothing of the round is left."""
        miner = self.miner
        miner.wait_ready()
        wait_until(self._is_quiet, 20, "nothing runs, waits or holds cells")
        async with httpx2.AsyncClient(base_url=miner.url, timeout=None, trust_env=False) as http:
            for kind in ("control", "control grammar"):
                ending = await self._send(http, control(kind))
                assert ending is not None
                assert ending.status == 200, ending
        wait_until(self._is_quiet, 20, "nothing runs, waits or holds cells")
        assert miner.metric("r3mes_miner_engine_restarts_total") == self._crashes
        now = wait_until(lambda: look(miner, self._marker), 20, "no connection and no process of a grammar is left")
        self.say(
            f"{time.monotonic() - self._started:6.0f} s, round {number}: {requests} requests, {self._crashes} crashes, "
            f"{miner.metric('r3mes_miner_preemptions_total'):.0f} preemptions, "
            f"{miner.metric('r3mes_miner_prefix_cache_hit_tokens_total'):.0f} tokens from the cache, "
            f"{miner.metric('r3mes_miner_generation_tokens_total'):.0f} generated; "
            f"API {now.api}; engine {now.engine}; nursery {now.nursery}; longest {self.tally.longest:.1f} s"
        )
        self.history.add(now)
        self.tally.assert_counted(miner)

    def _is_quiet(self) -> bool:
        for name in ("requests_running", "requests_waiting", "kv_cache_usage_ratio"):
            assert self.miner.metric(f"r3mes_miner_{name}") == 0, name
        return True


def seeded(*which: int) -> random.Random:
    """A generator of its own for each round and client: what one draws does not depend on how fast the others are."""
    return random.Random(f"{SEED} {which}")  # noqa: S311  (a load, not a secret)
