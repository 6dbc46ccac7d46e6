"""A conversation that outgrows the context window goes on without its oldest messages, where that was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.miner.stand import MODEL_NAME, SYSTEM, Miner, Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELLS = 512


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    store = Store(tmp_path_factory.mktemp("sliding"))
    store.put_model()
    settings = {"R3MES_N_CTX": str(CELLS), "R3MES_CONTEXT_OVERFLOW": "truncate", "R3MES_MAX_SEQUENCES": "2"}
    with Miner(store, settings) as running:
        running.wait_ready()
        yield running


def conversation(turns: int) -> list[dict[str, str]]:
    told = [
        message
        for turn in range(turns)
        for message in (
            {"role": "user", "content": f"Number {turn}: " + "tell me of the sea " * 8},
            {"role": "assistant", "content": "The sea is wide."},
        )
    ]
    return [{"role": "system", "content": SYSTEM}, *told, {"role": "user", "content": "What is the capital of France?"}]


def test_the_oldest_messages_are_left_out_and_the_answer_says_how_many(sliding: Miner) -> None:
    body = {"model": MODEL_NAME, "messages": conversation(40), "max_tokens": 24, "temperature": 0}
    answer = sliding.post("/v1/chat/completions", body)
    assert answer.status_code == 200
    left_out = int(answer.headers["X-R3MES-Left-Out"])
    assert 50 < left_out < 80
    assert left_out % 2 == 0, "whole turns"
    assert CELLS - 24 - 60 < answer.json()["usage"]["prompt_tokens"] <= CELLS - 24
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_a_stream_says_so_before_its_first_chunk(sliding: Miner) -> None:
    body = {"model": MODEL_NAME, "messages": conversation(40), "max_tokens": 4, "stream": True}
    with sliding.post("/v1/chat/completions", body, stream=True) as answer:
        assert int(answer.headers["X-R3MES-Left-Out"]) > 50


def test_what_fits_is_left_whole_and_nothing_is_said(sliding: Miner) -> None:
    answer = sliding.post("/v1/chat/completions", {"model": MODEL_NAME, "messages": conversation(1), "max_tokens": 4})
    assert answer.status_code == 200
    assert "X-R3MES-Left-Out" not in answer.headers


def test_of_a_bare_prompt_the_last_tokens_stay(sliding: Miner) -> None:
    answer = sliding.post(
        "/v1/completions", {"model": MODEL_NAME, "prompt": "word " * 2000 + "The end is", "max_tokens": 12}
    )
    assert answer.json()["usage"]["prompt_tokens"] == CELLS - 12
    assert int(answer.headers["X-R3MES-Left-Out"]) > 1000


def test_a_message_that_does_not_fit_alone_is_refused_with_both_numbers(sliding: Miner) -> None:
    answer = sliding.chat("word " * 3000)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert str(CELLS) in error["message"]
    assert "30" in error["message"]


def test_without_the_setting_nothing_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_model()
    with Miner(store, {"R3MES_N_CTX": str(CELLS)}) as miner:
        miner.wait_ready()
        body = {"model": MODEL_NAME, "messages": conversation(40), "max_tokens": 24}
        assert miner.post("/v1/chat/completions", body).status_code == 400
