"""Models whose memory cannot drop a suffix: nothing is shared or kept, and answers are those of the model alone.

The weights are random and floats, and without flash attention (which rounds to 16 bits) llama.cpp computes the same to
a millionth however requests are mixed, so each token must be the one that the model alone holds most likely.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.miner.engine.backend import AbortedError
from services.miner.engine.llama_backend import LlamaBackend, llama
from services.miner.engine.scheduler import Limits, Slice
from services.miner.engine.sequence import Sequence
from tests.integration.miner.engine_stand import Alone, EngineStand, loaded_backend
from tests.integration.miner.stand import Miner, Store, model_file
from tests.integration.miner.test_correctness import prompts
from tests.support.tiny_models import ARCHITECTURES, WINDOW, write_tiny

SEQUENCES = 8
ANSWER = 24
STORY = "Once upon a time there was a lighthouse keeper who wrote a letter to the sea every night. " * 6
# Two threads would spend more on waiting for each other than on so little work.
PLAIN = {"flash_attention": 0, "threads": 1}
WITH_STATE = {"recurrent", "hybrid"}


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / f"{kind}.gguf"
    write_tiny(kind, model_file(), path)
    return path


@pytest.fixture(scope="module")
def backend(file: Path) -> Iterator[LlamaBackend]:
    with loaded_backend(file, sequences=SEQUENCES, **PLAIN) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def alone(file: Path) -> Alone:
    return Alone(file, **PLAIN)


@pytest.fixture
def flag(backend: LlamaBackend) -> Iterator[ctypes.Array[ctypes.c_char]]:
    """What ends a decode while it is raised."""
    flag = ctypes.create_string_buffer(2)
    backend.abort_while(flag)
    yield flag
    flag[0] = b"\0"


def engine_on(backend: LlamaBackend, **changes: int) -> EngineStand:
    wanted = {"sequences": SEQUENCES, "cells": backend.cells, "batch_tokens": 128, "prefill_tokens": 64, **changes}
    return EngineStand(backend, Limits(**wanted, slots=backend.slots, sharing=backend.sharing))


def check_answers(stand: EngineStand, alone: Alone, asked: dict[str, list[int]]) -> None:
    for name, prompt in asked.items():
        tokens = stand.tokens[name]
        assert tokens[: len(prompt)] == prompt
        assert len(tokens) == len(prompt) + ANSWER
        assert all(alone.agreement(tokens, len(prompt))), f"request {name}"
        assert stand.reused(name) == 0


def held_slots(stand: EngineStand, backend: LlamaBackend) -> list[int]:
    """Slots of which llama.cpp holds anything, once all moves are done."""
    stand.step()
    return [slot for slot in range(backend.slots) if llama.llama_memory_seq_pos_max(backend._memory, slot) >= 0]


def test_the_kind_is_detected_and_every_slot_is_for_a_sequence_that_runs(kind: str, backend: LlamaBackend) -> None:
    assert backend.loaded().memory == kind
    assert not backend.sharing
    assert backend.slots == SEQUENCES


def test_what_the_tiny_model_says_depends_on_what_it_read_long_ago(alone: Alone) -> None:
    one, other = (alone.tokenise(beginning + STORY) for beginning in ("I say: ", "You sang "))
    differ = alone.logits(one, 0).argmax(axis=1)[-80:] != alone.logits(other, 0).argmax(axis=1)[-80:]
    assert len(one) > 80 + WINDOW
    assert differ.mean() > 0.1


def test_requests_with_one_beginning_compute_it_each_and_keep_nothing(backend: LlamaBackend, alone: Alone) -> None:
    stand = engine_on(backend)
    asked = prompts(alone, STORY)
    for name, prompt in list(asked.items())[:5]:  # together
        stand.submit(name, prompt, ANSWER)
    for _ in range(30):
        stand.step()
    for name, prompt in list(asked.items())[5:]:  # later, and the first one again
        stand.submit(name, prompt, ANSWER)
    stand.run()
    stand.submit("0", asked["0"], ANSWER)
    stand.run()
    check_answers(stand, alone, asked)
    assert stand.engine.scheduler.cache.kept == {}
    assert held_slots(stand, backend) == []


def test_a_preempted_request_is_computed_again_from_its_beginning(backend: LlamaBackend, alone: Alone) -> None:
    stand = engine_on(backend, cells=256)
    asked = prompts(alone)
    for name, prompt in asked.items():
        stand.submit(name, prompt, ANSWER)
    stand.run()
    assert stand.engine.occupancy().preemptions > 0
    check_answers(stand, alone, asked)
    assert held_slots(stand, backend) == []


def test_a_cache_that_turns_out_too_full_changes_no_answer(kind: str, file: Path, alone: Alone) -> None:
    with loaded_backend(file, cells=256, sequences=SEQUENCES, **PLAIN) as small:
        stand = engine_on(small, cells=2048)
        asked = prompts(alone)
        for name, prompt in asked.items():
            stand.submit(name, prompt, ANSWER)
        stand.run()
        check_answers(stand, alone, asked)
        assert (stand.engine.occupancy().preemptions > 0) is (kind != "recurrent")  # a state has one size


def test_what_others_cancel_changes_no_answer(backend: LlamaBackend, alone: Alone) -> None:
    stand = engine_on(backend)
    asked = prompts(alone, STORY)
    for name, prompt in asked.items():
        stand.submit(f"gone-{name}", [*prompt[:-8], 5, 6, 7], ANSWER)
        stand.submit(name, prompt, ANSWER)
    for name in asked:
        stand.step()
        stand.engine.cancel(f"gone-{name}")
    stand.run()
    check_answers(stand, alone, asked)
    assert held_slots(stand, backend) == []


def test_a_raised_flag_ends_no_decode_of_a_model_with_a_state(
    kind: str, backend: LlamaBackend, flag: ctypes.Array[ctypes.c_char]
) -> None:
    backend.clear()
    part = Slice(Sequence("one", list(range(400, 460)), 100, slot=0), 0, 60)
    flag[0] = b"\1"
    if kind in WITH_STATE:
        backend.decode([part])
    else:
        with pytest.raises(AbortedError):
            backend.decode([part])
        assert llama.llama_memory_seq_pos_max(backend._memory, 0) == -1


def test_a_cancelled_step_leaves_a_prompt_that_had_no_turn_in_it_as_it_was(
    backend: LlamaBackend, alone: Alone, flag: ctypes.Array[ctypes.c_char]
) -> None:
    stand = engine_on(backend, batch_tokens=64, quantum=32)
    asked = prompts(alone, STORY)
    for name in ("0", "1", "2"):
        stand.submit(name, asked[name], ANSWER)
    stand.step()  # the turns of 0 and 1
    flag[0] = b"\1"
    stand.step()  # those of 2 and 0
    flag[0] = b"\0"
    assert [each.computed for each in stand.engine.scheduler.running][1] > 0
    stand.engine.cancel("0")
    stand.engine.cancel("2")
    for name in ("3", "4"):  # in the slots of those
        stand.submit(name, asked[name], ANSWER)
    stand.run()
    check_answers(stand, alone, {name: asked[name] for name in ("1", "3", "4")})


def test_the_whole_miner_serves_it_and_two_choices_of_one_prompt_are_what_one_is(file: Path, store: Store) -> None:
    store.put_model(file.read_bytes())
    with Miner(store) as miner:
        miner.wait_ready()
        one = miner.chat("Tell me of the sea.", temperature=0, max_tokens=ANSWER)
        two = miner.chat("Tell me of the sea.", temperature=0, max_tokens=ANSWER, n=2)
    wanted = one.json()["choices"][0]["message"]["content"]
    assert wanted
    assert [choice["message"]["content"] for choice in two.json()["choices"]] == [wanted, wanted]
