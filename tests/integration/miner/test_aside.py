"""Prompts that are computed in the small context say what they say in the large one, and leave nothing behind."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from services.miner.engine.aside import ASIDE_CELLS, WORTH
from services.miner.engine.backend import AbortedError, NoRoomError
from services.miner.engine.cache_moves import Cut
from services.miner.engine.llama_backend import LlamaBackend
from services.miner.engine.scheduler import Slice
from services.miner.engine.sequence import Sequence
from tests.integration.miner.engine_stand import Alone, loaded_backend
from tests.integration.miner.stand import model_file

PROMPT = [1 + number * 37 % 4000 for number in range(500)]
ALIKE = 0.998  # batches of other sizes round differently


def sequence(tokens: list[int], slot: int = 0) -> Sequence:
    made = Sequence("one", list(tokens), len(tokens) + 10)
    made.slot = slot
    return made


def decoded_in(backend: LlamaBackend, one: Sequence, *cuts: int) -> NDArray[np.float32]:
    """Compute a sequence in slices that end at `cuts` and at its end; return the logits of its last token."""
    start, end = 0, len(one.tokens)
    for cut in (*cuts, end):
        backend.decode([Slice(one, start, cut - start)])
        last, start = cut - start - 1, cut
    return backend._logits(last).copy()


def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("cuts", [(), (128,), (100, 110, 400), (40, 41, 490)])
def test_a_prompt_says_the_same_however_it_is_cut(cuts: tuple[int, ...]) -> None:
    alone = Alone(model_file())
    expected = alone.logits(PROMPT, len(PROMPT) - 1)[0]
    alone.close()
    with loaded_backend(model_file(), batch_tokens=600) as backend:
        assert alike(decoded_in(backend, sequence(PROMPT), *cuts), expected) > ALIKE


def test_what_was_computed_aside_is_in_the_large_context() -> None:
    with loaded_backend(model_file(), batch_tokens=600) as backend:
        one = sequence(PROMPT[:200])
        first = decoded_in(backend, one)
        backend.move([Cut(0, 199)])
        backend.decode([Slice(one, 199, 1)])
        assert alike(backend._logits(0), first) > ALIKE


def test_several_prompts_of_one_step_and_an_answer_beside_them_keep_their_rows() -> None:
    ones = [sequence(PROMPT[start : start + 60], slot) for slot, start in enumerate((0, 200, 400))]
    with loaded_backend(model_file(), batch_tokens=600) as backend:
        expected = [decoded_in(backend, one) for one in ones]
        backend.move([Cut(slot, 0) for slot in range(3)])
        backend.decode([Slice(ones[1], 0, 59)])
        backend.decode([Slice(ones[0], 0, 60), Slice(ones[1], 59, 1), Slice(ones[2], 0, 60)])
        for row, wanted in zip((59, 60, 120), expected, strict=True):
            assert alike(backend._logits(row), wanted) > ALIKE


def test_a_prompt_longer_than_the_small_context_goes_on_in_the_large_one() -> None:
    tokens = [1 + number * 37 % 4000 for number in range(ASIDE_CELLS + 100)]
    with loaded_backend(model_file(), cells=4096, batch_tokens=512) as backend:
        cuts = range(512, len(tokens), 512)
        aside = decoded_in(backend, sequence(tokens), *cuts)
        backend.move([Cut(0, 0)])
        backend._aside = None
        assert alike(decoded_in(backend, sequence(tokens), *cuts), aside) > ALIKE


def test_a_few_tokens_after_a_long_prefix_are_not_worth_the_way() -> None:
    with loaded_backend(model_file(), batch_tokens=600) as backend:
        assert backend._aside is not None
        one = sequence(PROMPT)
        assert not backend._aside.suits(Slice(one, 20 * WORTH + 1, 20))
        assert backend._aside.suits(Slice(one, 20 * WORTH, 20))
        assert not backend._aside.suits(Slice(one, 0, 3))


def test_an_aborted_step_leaves_the_cache_as_it_was() -> None:
    with loaded_backend(model_file(), batch_tokens=600) as backend:
        flag = ctypes.create_string_buffer(2)
        backend.abort_while(flag)
        one, two = sequence(PROMPT[:300]), sequence(PROMPT[200:], slot=1)
        expected = decoded_in(backend, one)
        backend.move([Cut(0, 0)])
        flag[0] = b"\1"
        with pytest.raises(AbortedError):
            backend.decode([Slice(two, 0, 300), Slice(one, 0, 300)])
        flag[0] = b"\0"
        assert alike(decoded_in(backend, one), expected) > ALIKE


def test_no_room_in_the_large_context_gives_back_what_was_carried_there() -> None:
    with loaded_backend(model_file(), cells=512, sequences=2, batch_tokens=512) as backend:
        one, two = sequence(PROMPT[:300]), sequence(PROMPT[200:], slot=1)
        with pytest.raises(NoRoomError):
            backend.decode([Slice(one, 0, 300), Slice(two, 0, 300)])
        first = decoded_in(backend, one)  # there is room for one of them, and for the whole of it
        backend.move([Cut(0, 0)])
        assert alike(decoded_in(backend, one), first) > ALIKE
