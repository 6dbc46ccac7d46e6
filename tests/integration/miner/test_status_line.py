"""`r3mes status` asks a running miner: what it says is what the miner decided."""

from __future__ import annotations

import socket

import pytest

from launcher.endpoints import ClientSettings
from launcher.miner_status import MinerReport, ask_miner, describe_miner
from tests.integration.miner.stand import MODEL_NAME, Miner, Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def settings(url: str) -> ClientSettings:
    return ClientSettings.model_validate({"R3MES_URL": url})


def test_a_ready_miner_tells_model_engine_and_reasons(miner: Miner) -> None:
    found = ask_miner(settings(miner.url))
    assert found is not None
    text = "\n".join(describe_miner(MinerReport.model_validate(found)))
    assert text.startswith(f"miner at {miner.url}: ready, 0 running, 0 waiting")
    assert f"{MODEL_NAME} by llama.cpp on the processor, 1 thread, 8192 tokens of context" in text
    assert "why: 1 threads as set; " in text


def test_a_miner_that_waits_tells_for_what(store: Store) -> None:
    with Miner(store) as waiting:
        waiting.wait_not_ready("not verified yet")
        found = ask_miner(settings(waiting.url))
        assert found is not None
        first, *_ = describe_miner(MinerReport.model_validate(found))
        assert "not ready" in first
        assert "not verified yet" in first


def test_where_nobody_answers_nothing_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert ask_miner(settings(f"http://127.0.0.1:{port}")) is None
