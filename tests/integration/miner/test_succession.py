"""While the next model is loaded, the served one is watched over as ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.integration.miner.stand import Miner, Store, accept_next, events, served
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = {"max_tokens": 3000, "ignore_eos": True}


@contextmanager
def held_up(store: Store, miner: Miner) -> Iterator[psutil.Process]:
    """Have the next model accepted, and its engine stopped before it has loaded."""
    (old,) = miner.engines()
    content, digest = accept_next(store)
    store.put_model(content, digest=digest, file_name="next.gguf")
    engine = wait_until(
        lambda: next((each for each in miner.engines() if each.pid != old.pid), None), 30, "the next engine starts"
    )
    engine.suspend()
    try:
        assert served(miner) != ["Next"]
        yield engine
    finally:
        with suppress(psutil.NoSuchProcess):
            engine.resume()


def test_a_model_whose_engine_dies_while_the_next_one_is_loaded_is_not_called_ready(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        (old,) = miner.engines()
        with held_up(store, miner) as following:
            assert miner.readiness()["ready"]
            old.kill()
            miner.wait_not_ready(timeout=5)
            assert miner.chat("x", model="Next").status_code == 503
        miner.wait_ready()
        assert served(miner) == ["Next"]
        assert miner.chat("What is gravity?", model="Next").status_code == 200
        assert [engine.pid for engine in miner.engines()] == [following.pid]
        assert miner.metric("r3mes_miner_engine_restarts_total") == 0


def test_a_file_that_is_quarantined_while_the_next_one_is_loaded_is_served_no_more(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        (old,) = miner.engines()
        with held_up(store, miner), miner.chat("Tell me a story.", stream=True, **LONG) as running:
            assert running.status_code == 200
            store.quarantine()
            miner.wait_not_ready(timeout=5)
            assert "error" in events(running)[-1]
            wait_until(lambda: not psutil.pid_exists(old.pid), 10, "its engine is gone")
        miner.wait_ready()
        assert served(miner) == ["Next"]


def test_a_miner_that_is_stopped_while_the_next_model_is_loaded_leaves_no_engine(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        (old,) = miner.engines()
        with held_up(store, miner) as following:
            miner.terminate()
            assert miner.exit_code() == 0
            assert not any(psutil.pid_exists(pid) for pid in (old.pid, following.pid))
