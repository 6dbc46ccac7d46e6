"""Keys and values that come back from memory are those that were computed, whatever their type and layout."""

from __future__ import annotations

import numpy as np
import pytest

from services.miner.engine.cache_moves import Cut, Forget, Gather, Run, SwapIn, SwapOut
from services.miner.engine.scheduler import Slice
from services.miner.engine.sequence import Sequence
from tests.integration.miner.engine_stand import F16, F32, loaded_backend
from tests.integration.miner.stand import model_file

Q8_0 = 8
PROMPT = [1 + number * 37 % 4000 for number in range(150)]


@pytest.mark.parametrize(("cache_type", "flash_attention"), [(F16, 1), (F16, 0), (F32, 1), (Q8_0, 1)])
def test_a_prefix_from_memory_gives_the_same_logits_to_the_bit(cache_type: int, flash_attention: int) -> None:
    settings = {"cells": 512, "sequences": 2, "batch_tokens": 256, "cache_type": cache_type}
    with loaded_backend(model_file(), **settings, flash_attention=flash_attention, stored=1000) as backend:  # type: ignore[arg-type]  # names to numbers
        sequence = Sequence("one", [*PROMPT, 5], 200)
        sequence.slot = 0
        backend.decode([Slice(sequence, 0, len(PROMPT))])
        backend.decode([Slice(sequence, len(PROMPT), 1)])
        before = backend._logits(0).copy()

        half = len(PROMPT) // 2
        backend.move([SwapOut(0, 7, half, len(PROMPT)), Cut(0, half), SwapOut(0, 8, 0, half), Cut(0, 0)])
        backend.move([SwapIn(8, 0, 0, half), SwapIn(7, 0, half, len(PROMPT)), Forget(7), Forget(8)])
        backend.decode([Slice(sequence, len(PROMPT), 1)])
        assert np.array_equal(backend._logits(0), before)

        # Another prompt of the same length in these cells says something else.
        backend.move([Cut(0, 0)])
        other = Sequence("other", [*PROMPT[::-1], 5], 200)
        other.slot = 0
        backend.decode([Slice(other, 0, len(PROMPT))])
        backend.decode([Slice(other, len(PROMPT), 1)])
        assert not np.array_equal(backend._logits(0), before)


def test_of_a_prefix_in_memory_a_part_can_come_back_to_another_slot() -> None:
    with loaded_backend(model_file(), cells=512, sequences=2, batch_tokens=256, cache_type=F16, stored=1000) as backend:
        sequence = Sequence("one", [*PROMPT[:100], 5], 200)
        sequence.slot = 0
        backend.decode([Slice(sequence, 0, 100)])
        backend.decode([Slice(sequence, 100, 1)])
        alone = backend._logits(0).copy()
        backend.move([Cut(0, 0)])

        long = Sequence("long", [*PROMPT, 5], 200)
        long.slot = 0
        backend.decode([Slice(long, 0, len(PROMPT))])
        backend.move([SwapOut(0, 1, 0, len(PROMPT)), Cut(0, 0), SwapIn(1, 3, 0, 100), Forget(1)])
        sequence.slot = 3
        backend.decode([Slice(sequence, 100, 1)])

        close = np.corrcoef(backend._logits(0), alone)[0, 1]
        assert close > 0.998, "the batches were of other sizes, so the bits may differ"


@pytest.mark.parametrize("cache_type", [F16, Q8_0])
def test_cells_that_were_moved_together_give_the_same_logits_to_the_bit(cache_type: int) -> None:
    with loaded_backend(model_file(), cells=512, sequences=2, batch_tokens=256, cache_type=cache_type) as backend:
        ones = [Sequence(name, [*prompt, 5], 200) for name, prompt in (("one", PROMPT), ("two", PROMPT[::-1]))]
        for slot, sequence in enumerate(ones):
            sequence.slot = slot
        for place in range(60):  # cell by cell in turns
            backend.decode([Slice(sequence, place, 1) for sequence in ones])
        for sequence in ones:
            backend.decode([Slice(sequence, 60, 90)])

        def logits() -> list[np.ndarray]:
            backend.decode([Slice(sequence, len(PROMPT), 1) for sequence in ones])
            found = [backend._logits(index).copy() for index in (0, 1)]
            backend.move([Cut(0, len(PROMPT)), Cut(1, len(PROMPT))])
            return found

        before = logits()
        backend.move([Gather((Run(0, 0, len(PROMPT)), Run(1, 0, len(PROMPT))))])
        after = logits()
        assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
        assert not np.array_equal(*after)
