"""What the tests of a dying engine share: how it dies, and what must be true after."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil
import requests

from tests.integration.miner.stand import Miner
from tests.support.engine_flight import idle, stop_while
from tests.support.waiting import wait_until

LONG = {"max_tokens": 2000, "ignore_eos": True}
POISON = "Tell me a story about a king."
BLAMED = "request_crashes_engine"
IMPATIENT = "tests.support.impatient_miner"


def die(engine: psutil.Process, with_signal: signal.Signals) -> None:
    """Let a stopped engine die by a signal that it would get from the kernel or from a person."""
    engine.send_signal(with_signal)
    if with_signal is not signal.SIGKILL:
        engine.resume()


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


def crash_idle(miner: Miner) -> None:
    engine = engine_of(miner)
    stop_while(engine, idle)
    die(engine, signal.SIGSEGV)
    wait_until(lambda: not miner.readiness()["ready"], 30, "the miner sees it")
