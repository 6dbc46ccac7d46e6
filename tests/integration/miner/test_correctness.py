"""Answers of the engine on the real model are those of the model alone, however requests are mixed.

Given all before it, the model alone must hold each generated token most likely; one of a hundred may differ, where two
tokens are as good as equal. With quantised weights llama.cpp itself is not that even: cells of others beyond a multiple
of 256 move its logits by up to one, since it rounds activations. So this is judged on the same weights as floats of 32
bits, and on the file that is served where llama.cpp is deterministic: while all stands in the first 256 cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.miner.engine.llama_backend import LlamaBackend
from services.miner.engine.scheduler import Limits
from tests.integration.miner.engine_stand import Alone, EngineStand, loaded_backend
from tests.integration.miner.stand import model_file
from tests.support.dequantised import write_dequantised

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AGREEMENT = 0.99
ANSWER = 40
SMALL = 4  # requests that have room in 256 cells
STORY = "Once upon a time there was a lighthouse keeper who wrote a letter to the sea every night. " * 12
QUESTIONS = (
    "What did the keeper write about?",
    "List three animals of the sea.",
    "Explain how a lighthouse works.",
    "What is the capital of Norway?",
    "Write a short poem about fog.",
    "How old was the keeper?",
    "Name a colour and a number.",
    "Why is the sea salty?",
)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real model with weights as floats; half a gigabyte, so nothing of it stays."""
    file = tmp_path_factory.mktemp("floats") / "model.gguf"
    write_dequantised(model_file(), file)
    yield file
    file.unlink()


@pytest.fixture(scope="module")
def backend(floats: Path) -> Iterator[LlamaBackend]:
    with loaded_backend(floats, stored=4000) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def alone(floats: Path) -> Iterator[Alone]:
    with closing(Alone(floats)) as made:
        yield made


def prompts(alone: Alone, beginning: str = "") -> dict[str, list[int]]:
    return {
        str(number): alone.tokenise(f"{beginning}\nQuestion: {question}\nAnswer:")
        for number, question in enumerate(QUESTIONS)
    }


def check_answers(stand: EngineStand, alone: Alone, asked: dict[str, list[int]]) -> None:
    agreed = []
    for name, prompt in asked.items():
        tokens = stand.tokens[name]
        assert tokens[: len(prompt)] == prompt
        assert len(tokens) == len(prompt) + ANSWER
        agreed += alone.agreement(tokens, len(prompt))
    assert sum(agreed) / len(agreed) >= AGREEMENT, f"{agreed.count(False)} of {len(agreed)} tokens differ"


def limits(backend: LlamaBackend, **changes: int | bool) -> Limits:
    wanted: dict[str, int | bool] = {"sequences": 8, "cells": backend.cells, "batch_tokens": 128, "prefill_tokens": 64}
    return Limits(**{**wanted, "slots": backend.slots, **changes})  # type: ignore[arg-type]  # names to numbers


def test_requests_at_once_get_the_answers_that_they_get_alone(backend: LlamaBackend, alone: Alone) -> None:
    stand = EngineStand(backend, limits(backend))
    asked = prompts(alone)
    for name, prompt in asked.items():
        stand.submit(name, prompt, ANSWER)
    stand.run()
    check_answers(stand, alone, asked)


def test_requests_whose_cells_are_moved_together_get_the_answers_that_they_get_alone(
    backend: LlamaBackend, alone: Alone
) -> None:
    stand = EngineStand(backend, limits(backend, apart=True, gather_steps=8))
    asked = prompts(alone)
    for name, prompt in asked.items():
        stand.submit(name, prompt, ANSWER)
        for _ in range(5):
            stand.step()
    stand.run()
    check_answers(stand, alone, asked)


def test_requests_that_share_a_beginning_get_the_answers_that_they_get_alone(
    backend: LlamaBackend, alone: Alone
) -> None:
    stand = EngineStand(backend, limits(backend))
    asked = prompts(alone, STORY)
    for name, prompt in list(asked.items())[:5]:  # together
        stand.submit(name, prompt, ANSWER)
    for _ in range(30):
        stand.step()
    for name, prompt in list(asked.items())[5:]:  # later
        stand.submit(name, prompt, ANSWER)
    stand.run()
    check_answers(stand, alone, asked)
    assert [stand.reused(name) > 200 for name in asked] == [False, *[True] * 7]


def test_a_conversation_that_goes_on_from_kept_cells_gets_the_answer_that_it_gets_alone(
    backend: LlamaBackend, alone: Alone
) -> None:
    stand = EngineStand(backend, limits(backend))
    history, asked = alone.tokenise(STORY), {}
    for turn, question in enumerate(QUESTIONS[:5]):
        name = str(turn)
        asked[name] = [*history, *alone.tokenise(f"\nQuestion: {question}\nAnswer:")]
        stand.submit(name, asked[name], ANSWER)
        stand.run()
        assert stand.reused(name) == (len(history) - 1 if turn else 0)
        history = stand.tokens[name]
    check_answers(stand, alone, asked)


def test_prefixes_that_come_back_from_memory_give_the_answers_that_they_give_alone(
    backend: LlamaBackend, alone: Alone
) -> None:
    stand = EngineStand(backend, limits(backend, horizon=0, stored=backend.stored))
    asked, cache = prompts(alone, STORY), stand.engine.scheduler.cache
    for name, prompt in asked.items():
        stand.submit(f"between-{name}", alone.tokenise(f"Once more, {name}: " + "and on and on " * 80), 2)
        stand.run()
        stand.submit(name, prompt, ANSWER)
        stand.run()
        assert cache.stored > 0
    check_answers(stand, alone, asked)
    assert [stand.reused(name) > 200 for name in asked] == [False, *[True] * 7]


def test_preempted_requests_get_the_answers_that_they_get_alone(backend: LlamaBackend, alone: Alone) -> None:
    stand = EngineStand(backend, limits(backend, cells=256))
    asked = prompts(alone)
    for name, prompt in asked.items():
        stand.submit(name, prompt, ANSWER)
    stand.run()
    assert stand.engine.occupancy().preemptions > 0
    check_answers(stand, alone, asked)


def test_what_others_cancel_changes_no_answer(backend: LlamaBackend, alone: Alone) -> None:
    stand = EngineStand(backend, limits(backend))
    asked = prompts(alone, STORY)
    for name, prompt in asked.items():
        stand.submit(f"gone-{name}", [*prompt[:-8], 5, 6, 7], ANSWER)
        stand.submit(name, prompt, ANSWER)
    for name in asked:
        stand.step()
        stand.engine.cancel(f"gone-{name}")
    stand.run()
    check_answers(stand, alone, asked)


def test_the_served_file_gives_token_for_token_what_it_gives_alone_in_the_first_256_cells() -> None:
    with closing(Alone(model_file())) as alone:
        check_the_served_file(alone)


def check_the_served_file(alone: Alone) -> None:
    asked = {name: prompt for name, prompt in prompts(alone).items() if int(name) < SMALL}
    with loaded_backend(model_file()) as backend:
        stand = EngineStand(backend, limits(backend))
        for name, prompt in asked.items():
            stand.submit(name, prompt, ANSWER)
        stand.run()
    for name, prompt in asked.items():
        assert all(alone.agreement(stand.tokens[name], len(prompt)))
