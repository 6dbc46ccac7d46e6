"""Grammar outside the chain: the chain draws a token, the grammar is asked about that one alone.

Only where it refuses are all other tokens it allows given to the chain again; nearly every token needs no second draw,
and the questions of all requests of a step are asked before the first answer is waited for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.miner.engine.sampling import SamplerChain
from services.miner.grammar.candidates import Candidates
from services.miner.grammar.matcher import ConstraintError, Matcher

Logits = NDArray[np.float32]


class ConstrainedSampler:
    """A sampler whose tokens match a grammar. Order: `begin(row)`, then `sample(row)`; both raise ConstraintError."""

    def __init__(
        self, chain: SamplerChain, matcher: Matcher, candidates: Candidates, logits: Callable[[int], Logits]
    ) -> None:
        self._chain = chain
        self._matcher = matcher
        self._candidates = candidates
        self._logits = logits
        self._proposed = 0

    def begin(self, index: int) -> None:
        """Draw from the row and ask the grammar about what was drawn."""
        logits = self._logits(index)
        self._proposed = self._chain.choose(self._candidates.fill(np.arange(len(logits), dtype=np.int32), logits))
        self._matcher.propose(self._proposed)

    def sample(self, index: int) -> int:
        """Return the token, which the grammar has accepted."""
        token, allowed = self._proposed, self._matcher.answer()
        if allowed is not None:
            token = self._choose(np.flatnonzero(allowed).astype(np.int32), self._logits(index))
            self._matcher.accept(token)
        self._chain.remember(token)
        return token

    def close(self) -> None:
        """Free the chain and end the grammar's process."""
        self._matcher.close()
        self._chain.close()

    def _choose(self, tokens: NDArray[np.int32], logits: Logits) -> int:
        if len(tokens) == 0:
            raise ConstraintError("the grammar allows no further token, and the answer is not complete")
        if len(tokens) == 1:
            return int(tokens[0])
        return self._chain.choose(self._candidates.fill(tokens, logits[tokens]))
