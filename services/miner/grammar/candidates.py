"""Tokens to choose from, as llama.cpp's samplers take them, laid out by numpy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

llama: Any = llama_cpp

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Candidates:
    """A `llama_token_data_array` over a numpy array of `CANDIDATE`, with room for the whole vocabulary."""

    def __init__(self, size: int) -> None:
        self.rows = np.zeros(size, CANDIDATE)
        pointer = ctypes.cast(self.rows.ctypes.data, ctypes.POINTER(llama.llama_token_data))
        self.array = llama.llama_token_data_array(data=pointer)

    def fill(self, tokens: NDArray[np.int32], logits: NDArray[np.float32] | float) -> ctypes.Structure:
        """Lay these tokens out and return the array, valid until the next `fill`."""
        count = len(tokens)
        self.rows["id"][:count] = tokens
        self.rows["logit"][:count] = logits
        self.array.size, self.array.selected, self.array.sorted = count, -1, False
        return self.array  # type: ignore[no-any-return]  # the package is not typed
