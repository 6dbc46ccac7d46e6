"""From the last layer's numbers of a text's tokens, which come in parts, to one vector of length 1. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.miner.engine.backend import Hidden, Pooling


class Embedding:
    """Order: `add` for each part of the text from its first token on, then `vector`; a text may begin again."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._sum: NDArray[np.float64] = np.zeros(0)

    def add(self, start: int, hidden: Hidden) -> None:
        """Take the numbers of the tokens from position `start` on: (tokens, width)."""
        rows = hidden.astype(np.float64)
        if start == 0:
            self._sum = rows[0] if self._pooling == "first" else np.zeros(rows.shape[1])
        if self._pooling == "mean":
            self._sum = self._sum + rows.sum(axis=0)
        elif self._pooling == "last":
            self._sum = rows[-1]

    def vector(self) -> tuple[float, ...]:
        """Return the embedding; only its direction says anything, so that a mean needs no division."""
        length = float(np.linalg.norm(self._sum))
        return tuple((self._sum / length if length else self._sum).tolist())
