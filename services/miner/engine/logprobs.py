"""Log probabilities: from the logits of a sampled row, for requests that ask, and shown when their text is.

They are of the model alone, before bias, penalties, cuts and temperature, as OpenAI's are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.miner.engine.detokeniser import TextStream
from services.miner.engine.messages import Likelihood, TokenLogprobs

LEAST = -9999.0  # what OpenAI writes where JSON has no word for minus infinity

Ranking = tuple[Likelihood, tuple[Likelihood, ...]]


def ranking(logits: NDArray[np.float32], token: int, count: int, piece: Callable[[int], bytes]) -> Ranking:
    """Return the likelihood of `token` and the `count` likeliest tokens of a row, the likeliest first."""
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
    count = min(count, len(logits))
    best = np.argpartition(-logits, count - 1)[:count] if count else np.empty(0, np.intp)
    best = best[np.lexsort((best, -logits[best]))]

    def likelihood(index: int) -> Likelihood:
        return Likelihood(tuple(piece(index)), max(float(logits[index]) - total, LEAST))

    return likelihood(token), tuple(likelihood(int(index)) for index in best)


class LogprobStream:
    """Holds the log probabilities of tokens back until all of their text is shown.

    So nothing of a stop string is told by them either. Order: `push` before the text stream takes the token's bytes,
    `shown` after it; `rest` after it has finished.
    """

    def __init__(self, text: TextStream) -> None:
        self._text = text
        self._held: deque[tuple[TokenLogprobs, int]] = deque()  # with the character after the token's last one
        self._last: TokenLogprobs | None = None

    def push(self, found: Ranking) -> None:
        """Take what was found for the token that comes next."""
        self._last = TokenLogprobs(*found, offset=self._text.decoded)

    def shown(self) -> tuple[TokenLogprobs, ...]:
        """Return those whose text has been shown since the last call."""
        text = self._text
        if self._last is not None:
            self._held.append((self._last, text.decoded + text.mid_character))
            self._last = None
        released = []
        while self._held and self._held[0][1] <= text.shown:
            released.append(self._held.popleft()[0])
        return tuple(released)

    def rest(self) -> tuple[TokenLogprobs, ...]:
        """Return what is left at the end; after a stop string only what stands before it."""
        released = self.shown()
        if self._text.stopped:
            return released
        held, self._held = self._held, deque()
        return released + tuple(found for found, _ in held)
