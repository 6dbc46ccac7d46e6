"""From a pin to a load, and what makes a miner stop: trust, wrong bytes, quarantine, signals, a dead engine."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import requests

from shared.store.records import StatIdentity
from tests.integration.miner.stand import (
    MODEL_NAME,
    SHA256,
    Miner,
    Store,
    accept_next,
    events,
    genesis_entry,
    model_file,
    served,
)
from tests.support.engine_flight import decodes, stop_while
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = {"max_tokens": 3000, "ignore_eos": True}


def test_a_miner_lives_before_its_model_and_loads_it_when_it_is_verified(store: Store) -> None:
    with Miner(store) as miner:
        readiness = miner.wait_not_ready("not verified yet")
        assert readiness["model"] == MODEL_NAME
        assert miner.get("/healthz").status_code == 200
        assert miner.get("/v1/models").json()["data"] == []
        response = miner.chat("x")
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "not verified yet" in response.json()["error"]["message"]
        assert miner.chat("x", model="other").status_code == 404
        store.put_model()
        miner.wait_ready()
        assert miner.chat("What is gravity?").status_code == 200
        assert miner.metric("r3mes_miner_model_load_seconds_count") == 1


def tampered() -> bytes:
    content = bytearray(model_file().read_bytes())
    content[-1000] ^= 1
    return bytes(content)


@pytest.mark.parametrize("receipt", ["none", "of the right file", "forged to the last field"])
def test_wrong_bytes_are_never_loaded_whatever_the_receipt_says(store: Store, receipt: str) -> None:
    path = store.put_model(tampered(), receipt=False)
    if receipt == "of the right file":
        store.write_receipt(StatIdentity.of(model_file().stat()))
    elif receipt == "forged to the last field":
        store.write_receipt(StatIdentity.of(path.stat()))
    with Miner(store, {"R3MES_MINER_REHASH": "always"} if "forged" in receipt else {}) as miner:
        miner.wait_not_ready(f"the genesis pins {SHA256}")
        assert miner.chat("x").status_code == 503
        assert miner.engines() == []
        with path.open("rb") as file:
            assert len(file.read(4)) == 4  # the miner leaves it to the verifier
        store.layout.receipt(SHA256).unlink(missing_ok=True)
        path.unlink()
        store.put_model()
        miner.wait_ready()


def test_a_right_file_without_a_receipt_is_hashed_and_served(store: Store) -> None:
    store.put_model(receipt=False)
    with Miner(store) as miner:
        miner.wait_ready()
        assert '"rehashed": true' in miner.log.read_text()
        assert not store.layout.receipt(SHA256).exists()


def test_a_link_in_the_place_of_the_file_is_not_followed(store: Store) -> None:
    path = store.put_model(receipt=False)
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    with Miner(store) as miner:
        miner.wait_not_ready("not verified yet")


def test_a_file_whose_structure_lies_is_refused_with_the_place(store: Store) -> None:
    content = model_file().read_bytes()[:-4096]
    digest = hashlib.sha256(content).hexdigest()
    store.pin(genesis_entry(verification_sha256=digest))
    store.put_model(content, digest=digest)
    with Miner(store) as miner:
        miner.wait_not_ready("not a sound GGUF file: tensor data")
        assert miner.engines() == []


def test_a_quarantined_file_stops_the_service_until_a_right_one_is_there(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        store.quarantine()
        assert miner.chat("x").status_code == 503
        miner.wait_not_ready("not verified yet", timeout=10)
        wait_until(lambda: miner.engines() == [], 10, "the engine is gone")
        assert miner.metric("r3mes_miner_engine_restarts_total") == 0
        store.put_model()
        miner.wait_ready()
        assert miner.chat("What is gravity?").status_code == 200


def test_a_file_that_is_changed_in_place_is_not_served_any_more(store: Store) -> None:
    path = store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(b"changed")
        miner.wait_not_ready(f"the genesis pins {SHA256}")


def test_a_killed_engine_costs_its_requests_an_error_and_is_started_again(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(2) as pool:
        miner.wait_ready()
        whole = pool.submit(miner.chat, "Tell me about bread.", **LONG)
        streamed = miner.chat("Tell me a story.", stream=True, **LONG)
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 2, 30, "both run")
        (engine,) = miner.engines()
        stop_while(engine, decodes(2))
        engine.kill()
        assert "error" in events(streamed)[-1]
        response = whole.result()
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "service_unavailable"
        assert "Retry-After" in response.headers
        wait_until(lambda: miner.metric("r3mes_miner_engine_restarts_total") == 1, 30, "the restart is counted")
        miner.wait_ready()
        assert miner.chat("What is gravity?").status_code == 200
        assert miner.metric("r3mes_miner_requests_running") == 0


def test_a_gpu_that_is_gone_makes_the_miner_not_ready_and_is_looked_for_again(store: Store) -> None:
    store.put_model()
    with Miner(store, module="tests.integration.miner.gpu_lost") as miner:
        reason = miner.wait_not_ready("layers were to run on a GPU, and llama.cpp finds none")["reason"]
        assert "R3MES_N_GPU_LAYERS=0" in reason
        assert "PyTorch" not in reason
        assert miner.get("/v1/models").json()["data"] == []
        wait_until(lambda: miner.log.read_text().count('"hardware"') > 1, 30, "another try")


def test_three_refused_loads_in_a_row_are_the_last_and_the_reason_is_shown(store: Store) -> None:
    # A sound file of an architecture that llama.cpp does not know: it refuses it each time.
    store.put_model(model_file().read_bytes().replace(b"llama", b"llamx", 1))
    with Miner(store) as miner:
        readiness = miner.wait_not_ready("gave up after 3 failed loads")
        assert "unknown model architecture: 'llamx'" in readiness["reason"]
        assert readiness["state"] == "failed"
        assert miner.get("/healthz").status_code == 200


def test_an_engine_that_dies_three_times_while_it_loads_is_not_started_again_for_a_while(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        killed: set[int] = set()

        def kill_until_given_up() -> bool:
            for engine in miner.engines():
                with suppress(psutil.NoSuchProcess):
                    engine.kill()
                    killed.add(engine.pid)
            return "gave up for 60 s after 3 crashes" in miner.readiness()["reason"]

        wait_until(kill_until_given_up, 90, "three loads failed")
        assert "died while it loaded the model (killed by signal 9)" in miner.readiness()["reason"]
        assert len(killed) == 3
        assert miner.metric("r3mes_miner_engine_restarts_total") == 2
        assert miner.chat("x").status_code == 503
        store.quarantine()
        store.put_model()  # another file: a new chance
        miner.wait_ready()


def test_no_engine_outlives_a_killed_miner(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        (engine,) = miner.engines()
        with suppress(requests.RequestException), miner.chat("Tell me a story.", stream=True, **LONG):
            os.kill(miner.pid, signal.SIGKILL)
            engine.wait(5)
        assert not psutil.pid_exists(engine.pid)


def test_a_stopped_miner_answers_what_runs_takes_nothing_new_and_exits_0(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(1) as pool:
        miner.wait_ready()
        (engine,) = miner.engines()
        running = pool.submit(miner.chat, "What is gravity?", max_tokens=300, ignore_eos=True)
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 1, 30, "the request runs")
        miner.terminate()
        miner.wait_not_ready("stopping", timeout=5)
        assert miner.chat("x").status_code == 503
        assert running.result().json()["usage"]["completion_tokens"] == 300
        assert miner.exit_code() == 0
        assert not psutil.pid_exists(engine.pid)


def test_the_drain_ends_after_its_time_and_at_a_second_signal(store: Store) -> None:
    store.put_model()
    for seconds, signals in (("0.5", 1), ("60", 2)):
        with Miner(store, {"R3MES_DRAIN_SECONDS": seconds}) as miner:
            miner.wait_ready()
            streamed = miner.chat("Tell me a story.", stream=True, **LONG)
            miner.terminate()
            if signals > 1:
                miner.wait_not_ready("stopping", timeout=5)
                miner.terminate()
            assert "error" in events(streamed)[-1]
            assert miner.exit_code(20) == 0


def test_a_miner_whose_engine_stands_still_with_unread_requests_exits_0_all_the_same(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_DRAIN_SECONDS": "0.5"}) as miner, ThreadPoolExecutor(32) as pool:
        miner.wait_ready()
        (engine,) = miner.engines()
        engine.suspend()
        prompt = [11] * 8_000
        body = {"model": MODEL_NAME, "prompt": prompt, "max_tokens": 1}
        for _ in range(32):  # together more than the channel's buffers hold
            pool.submit(miner.post, "/v1/completions", body)
        sent = 32 * len(prompt)
        wait_until(lambda: miner.metric("r3mes_miner_prompt_tokens_total") == sent, 30, "all are sent")
        miner.terminate()
        assert miner.exit_code(30) == 0
        assert not psutil.pid_exists(engine.pid)


def test_a_miner_without_a_model_stops_at_once(store: Store) -> None:
    with Miner(store) as miner:
        miner.wait_not_ready("not verified yet")
        miner.terminate()
        assert miner.exit_code(10) == 0


def test_a_newly_accepted_genesis_swaps_when_its_model_is_verified(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        content, digest = accept_next(store)
        genesis = hashlib.sha256(store.genesis.read_bytes()).hexdigest()
        wait_until(lambda: miner.metric("r3mes_genesis_info", sha256=genesis) == 1, 10, "the genesis is noticed")
        assert miner.chat("What is gravity?").status_code == 200  # the old one serves until the new one is there
        early = miner.chat("What is gravity?", model="Next")
        assert (early.status_code, early.headers["Retry-After"]) == (503, "5")
        store.put_model(content, digest=digest, file_name="next.gguf")
        wait_until(lambda: served(miner) == ["Next"], 60, "the swap")
        assert miner.readiness()["ready"]
        assert miner.chat("What is gravity?", model="Next").status_code == 200
        assert miner.chat("x").status_code == 404
        assert miner.metric("r3mes_miner_engine_restarts_total") == 0


def test_where_memory_holds_two_models_no_request_fails_while_they_are_swapped(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(4) as pool:
        miner.wait_ready()
        swapped = threading.Event()

        def ask_all_the_time() -> list[int]:
            """Ask for the model that is served, whichever that is, until some time after the swap."""
            statuses: list[int] = []
            after = 0
            while after < 3:
                after += swapped.is_set()
                name = served(miner)[0]
                statuses.append(miner.chat("What is gravity?", model=name, max_tokens=8).status_code)
                if statuses[-1] == 404 and served(miner)[0] != name:
                    statuses[-1] = 200  # its name went between the two questions; nobody has it pinned any more
            return statuses

        asking = [pool.submit(ask_all_the_time) for _ in range(4)]
        content, digest = accept_next(store)
        store.put_model(content, digest=digest, file_name="next.gguf")
        try:
            wait_until(lambda: served(miner) == ["Next"], 60, "the swap")
        finally:
            swapped.set()
        statuses = [status for each in asking for status in each.result(60)]
        assert set(statuses) == {200}, statuses
        wait_until(lambda: len(miner.engines()) == 1, 30, "the old engine is gone")
        assert "overtaken" in miner.log.read_text()


def test_where_memory_holds_one_model_the_old_one_answers_first(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_DRAIN_SECONDS": "60"}, "tests.integration.miner.cramped") as miner:
        miner.wait_ready()
        with miner.chat("Tell a long story.", stream=True, max_tokens=600, ignore_eos=True) as running:
            lines = running.iter_lines()
            next(lines)
            content, digest = accept_next(store)
            store.put_model(content, digest=digest, file_name="next.gguf")
            miner.wait_not_ready("another model was accepted")
            assert len(miner.engines()) == 1
            assert list(lines)[-2] == b"data: [DONE]"
        wait_until(lambda: served(miner) == ["Next"], 60, "the swap")
        assert "free beside it" in miner.log.read_text()


def test_a_next_model_that_cannot_be_loaded_leaves_the_old_one_where_it_is(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_ENGINE": "llama"}) as miner:
        miner.wait_ready()
        content = model_file().read_bytes().replace(b"layer_norm_rms_epsilon", b"layer_norm_rms_epsilom")
        digest = hashlib.sha256(content).hexdigest()
        store.pin(genesis_entry(model_name="Next", file_name="next.gguf", verification_sha256=digest))
        store.accept()
        store.put_model(content, digest=digest, file_name="next.gguf")
        wait_until(lambda: "the next model is not loaded" in miner.log.read_text(), 60, "it was tried")
        assert miner.readiness()["ready"]
        assert miner.chat("What is gravity?").status_code == 200
        assert len(miner.engines()) == 1


def test_a_new_name_for_the_same_file_needs_no_load(store: Store) -> None:
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        (engine,) = miner.engines()
        store.pin(genesis_entry(model_name="Renamed"))
        store.accept()
        wait_until(lambda: [m["id"] for m in miner.get("/v1/models").json()["data"]] == ["Renamed"], 10, "the name")
        assert miner.chat("What is gravity?", model="Renamed").status_code == 200
        assert [other.pid for other in miner.engines()] == [engine.pid]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"R3MES_MODEL": "no-such-model"}, "R3MES_MODEL"),
        ({"R3MES_N_GPU_LAYERS": "10"}, "R3MES_N_GPU_LAYERS"),
        ({"R3MES_ENGINE": "jax"}, "R3MES_ENGINE"),
        ({"R3MES_STORE_KIND": "container"}, "no genesis is accepted"),
    ],
)
def test_a_setting_that_cannot_be_honoured_stops_the_start(
    store: Store, environment: dict[str, str], words: str
) -> None:
    with Miner(store, environment) as miner:
        assert miner.exit_code() == 78
        assert words in miner.log.read_text()


def test_an_address_in_use_stops_the_start(store: Store) -> None:
    with Miner(store) as first:
        first.wait_not_ready("not verified yet")
        with Miner(store, {"R3MES_LISTEN": f"127.0.0.1:{first.port}"}) as second:
            assert second.exit_code() == 78
            assert "cannot listen" in second.log.read_text()


def test_the_miner_writes_nothing_into_a_container_store(store: Store) -> None:
    with Miner(store) as host:  # lays trust/ out
        host.wait_not_ready("not verified yet")
    (store.layout.root / "store.json").unlink()
    store.put_model()
    before = sorted((str(path), path.stat().st_mtime_ns) for path in store.layout.root.rglob("*"))
    with Miner(store, {"R3MES_STORE_KIND": "container"}) as miner:
        miner.wait_ready()
        assert miner.chat("What is gravity?").status_code == 200
        miner.terminate()
        assert miner.exit_code() == 0
    assert sorted((str(path), path.stat().st_mtime_ns) for path in store.layout.root.rglob("*")) == before
