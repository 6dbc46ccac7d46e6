"""What executes a plan: the interface between the engine and a library that computes (llama.cpp; PyTorch later)."""

from __future__ import annotations

from collections.abc import Sequence as Row
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from services.miner.engine.cache_moves import Move
from services.miner.engine.logprobs import Ranking
from services.miner.engine.messages import Submit
from services.miner.engine.scheduler import Slice
from services.miner.grammar.matcher import Matcher
from services.miner.grammar.wire import Constraint
from shared.errors import EngineError

Pooling = Literal["mean", "last", "first"]
Hidden = NDArray[np.float32]


class NoRoomError(Exception):
    """The cache found no cells for this batch and is as it was before."""


class GpuGoneError(EngineError):
    """Layers were to run on a GPU, and there is none (any more); never a silent run on the processor instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}: start the container or the miner again (a running container can lose its GPU), or set"
            " R3MES_N_GPU_LAYERS=0 to run on the processor"
        )


class AbortedError(Exception):
    """Every request of this batch was cancelled while it was computed; the cache holds nothing of it."""


class Sampler(Protocol):
    """Chooses the next token of one request and remembers what it chose."""

    def begin(self, index: int) -> None:
        """Start what can run while other requests begin theirs; called once before each `sample`."""
        ...

    def sample(self, index: int) -> int:
        """Return the token for the `index`-th row of the last batch; raises ConstraintError when there is none."""
        ...

    def close(self) -> None:
        """Free what it holds; it is not used again."""
        ...


class Backend(Protocol):
    """A loaded model with its cache."""

    @property
    def cells(self) -> int:
        """Tokens that the cache holds."""
        ...

    @property
    def pooling(self) -> Pooling:
        """What the model was made for: which tokens' numbers, in the last layer, are the embedding of a text."""
        ...

    def decode(self, slices: Row[Slice]) -> None:
        """Compute all slices together, in order; raises NoRoomError, AbortedError, or EngineError (broken).

        Either all of their sequences embed, or none.
        """
        ...

    def hidden(self, start: int, count: int) -> Hidden:
        """Return the last layer's numbers of `count` rows of the last batch, which embedded: (count, width)."""
        ...

    def move(self, moves: Row[Move]) -> None:
        """Do these copies and cuts to the cache, in order."""
        ...

    def matcher(self, constraint: Constraint) -> Matcher:
        """Begin to parse a constraint; raises ConstraintError when that is not possible."""
        ...

    def sampler(self, request: Submit, matcher: Matcher | None) -> Sampler:
        """Make the sampler of one request, and with a matcher one that samples nothing else; it closes the matcher."""
        ...

    def ranking(self, index: int, token: int, count: int) -> Ranking:
        """Return how likely a token is in a row of the last batch, and which are the `count` likeliest."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""
        ...

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer."""
        ...
