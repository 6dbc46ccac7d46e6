"""The arrays of one `llama_batch`, filled as numpy views: a loop of ctypes stores costs 25 times more."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Row
from typing import Any

import numpy as np
from llama_cpp import llama_cpp

from services.miner.engine.scheduler import Slice

llama: Any = llama_cpp


class Batch:
    """Room for `capacity` tokens, each of one sequence. The arrays live as long as this object."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._slot = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._slot_count = np.ones(capacity, np.int32)
        addresses = self._slot.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._slot.itemsize
        self._slot_pointer = np.ascontiguousarray(addresses, np.uintp)
        self._batch = llama.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._slot_count),
            ("seq_id", self._slot_pointer),
            ("logits", self._output),
        ):
            pointer_type = dict(llama.llama_batch._fields_)[name]  # ctypes has no public name for it
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, pointer_type))

    def fill(self, slices: Row[Slice], slot: int | None = None) -> ctypes.Structure:
        """Lay the slices one after another and return the `llama_batch`, valid until the next `fill`.

        With `slot`, all are of that one, whichever they hold.
        """
        end = 0
        for part in slices:
            start, end = end, end + part.count
            self._token[start:end] = part.tokens
            self._position[start:end] = np.arange(part.start, part.start + part.count)
            self._slot[start:end] = part.slot if slot is None else slot
            self._output[start:end] = 0
            self._output[end - 1] = part.samples
        self._batch.n_tokens = end
        return self._batch  # type: ignore[no-any-return]  # the package is not typed
