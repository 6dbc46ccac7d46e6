"""Prompts on the processor are computed in a small context of their own, and their cells carried into the large one.

Attention on the processor walks over every cell of a cache, also over those of other sequences, which it leaves out one
by one. In here lies one sequence at a time, so a prompt takes as long beside many long conversations as it does alone.
Carrying keys and values costs a thousandth of computing them, once in (what its sequence has already) and once out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from services.miner.engine.abort import look_at
from services.miner.engine.batch import Batch
from services.miner.engine.scheduler import Slice
from services.miner.engine.sequence import Sequence
from shared.errors import EngineError

llama: Any = llama_cpp

ASIDE_CELLS = 2_048  # a longer prompt goes on in the large context
ASIDE_BATCH = 128
LEAST = 16  # tokens; fewer are not worth the way
WORTH = 8  # tokens that are carried in for one that is computed: 2 % of its time
SEQUENCE, PACKING = 0, 1  # the slots in here

Packed = NDArray[np.uint8]


class Aside:
    """One context of at most `ASIDE_CELLS`. Raises EngineError from the constructor when llama.cpp makes none."""

    def __init__(self, model: object, parameters: ctypes.Structure, vocabulary_size: int) -> None:
        parameters.n_ctx = min(parameters.n_ctx, ASIDE_CELLS)
        parameters.n_batch = parameters.n_ubatch = ASIDE_BATCH
        parameters.n_seq_max = parameters.n_outputs_max = 2
        self._context = llama.llama_init_from_model(model, parameters)
        if not self._context:
            raise EngineError("llama.cpp makes no second context for this model")
        self._memory = llama.llama_get_memory(self._context)
        self._cells = int(llama.llama_n_ctx(self._context))
        self._size = vocabulary_size
        self._batch = Batch(ASIDE_BATCH)
        self._holds: tuple[Sequence | None, int] = None, 0  # whose tokens, and how many

    def abort_while(self, flag: ctypes.Array[ctypes.c_char]) -> None:
        """End any decode while the first byte of `flag` is not 0."""
        look_at(self._context, flag)

    def suits(self, part: Slice) -> bool:
        """Tell whether a slice is better computed here."""
        if part.sequence.embeds or part.count < LEAST or part.start + part.count > self._cells:
            return False
        return self._holds == (part.sequence, part.start) or part.start <= WORTH * part.count

    def decode(self, part: Slice, pack: Callable[[int], Packed]) -> int:
        """Compute a slice; `pack(end)` gives the tokens before it. Returns what `llama_decode` does."""
        if self._holds != (part.sequence, part.start):
            self._take_in(part, pack)
        self._holds = None, 0  # until it is done
        end = part.start + part.count
        for start in range(part.start, end, ASIDE_BATCH):
            piece = Slice(part.sequence, start, min(ASIDE_BATCH, end - start))
            result = int(llama.llama_decode(self._context, self._batch.fill([piece], slot=SEQUENCE)))
            if result:
                return result
        self._holds = part.sequence, end
        return 0

    def packed(self, part: Slice) -> Packed:
        """Return keys and values of a slice that was just computed."""
        llama.llama_memory_seq_cp(self._memory, SEQUENCE, PACKING, part.start, part.start + part.count)
        data = packed_sequence(self._context, PACKING)
        llama.llama_memory_seq_rm(self._memory, PACKING, 0, -1)
        return data

    def logits(self) -> NDArray[np.float32]:
        """Return a copy of the logits of the last token."""
        pointer = llama.llama_get_logits_ith(self._context, -1)
        return np.array(np.ctypeslib.as_array(pointer, (self._size,)))

    def forget(self) -> None:
        """Hold nothing."""
        self._holds = None, 0

    def _take_in(self, part: Slice, pack: Callable[[int], Packed]) -> None:
        llama.llama_memory_clear(self._memory, False)
        if not part.start:
            return
        data = pack(part.start)
        if not llama.llama_state_seq_set_data(self._context, bytes_of(data), data.size, SEQUENCE):
            raise EngineError("llama.cpp takes a prefix not into its second context")


def packed_sequence(context: object, slot: int) -> Packed:
    """Copy keys and values of all that a slot holds out of a context."""
    size = int(llama.llama_state_seq_get_size(context, slot))
    packed = np.empty(size, np.uint8)
    written = llama.llama_state_seq_get_data(context, bytes_of(packed), size, slot)
    if written != size:
        raise EngineError(f"llama.cpp wrote {written} bytes of the {size} that a prefix takes")
    return packed


def bytes_of(array: Packed) -> Any:  # noqa: ANN401 - a pointer of ctypes
    """Return a pointer to the bytes of an array."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
