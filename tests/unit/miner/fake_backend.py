"""A model that computes nothing and checks every batch: no cell twice, positions contiguous, moves that make sense."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

import numpy as np

from services.miner.engine.backend import Hidden, NoRoomError, Pooling
from services.miner.engine.cache_moves import Copy, Cut, Forget, Gather, Move, SwapIn, SwapOut
from services.miner.engine.logprobs import Ranking
from services.miner.engine.messages import Likelihood, Submit
from services.miner.engine.scheduler import EMBED_TOKENS, Slice
from services.miner.grammar.matcher import ConstraintError, Matcher
from services.miner.grammar.wire import Constraint

END = 0


@dataclass(eq=False)
class Cell:
    token: int


class FakeSampler:
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._backend.samplers += 1

    def begin(self, index: int) -> None:
        self._begun = index

    def sample(self, index: int) -> int:
        """A function of all tokens of the sequence, so that recomputing it gives the same."""
        assert self._begun == index
        return self._backend.token_after(self._backend.rows[index])

    def close(self) -> None:
        self._backend.samplers -= 1


class FakeBackend:
    """Keeps cells as llama.cpp does: each knows its token, its position and the slots that hold it.

    `rows` are the token histories of the last batch; `cells` may be fewer than the scheduler was told.
    """

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self.held: dict[int, list[Cell]] = {}
        self.rows: dict[int, tuple[int, ...]] = {}
        self.batches: list[list[tuple[str, int]]] = []
        self.samplers = 0
        self.pooling: Pooling = "mean"
        self.embedded: list[tuple[int, int]] = []  # (token, position) of the last batch, where it embedded
        self.gathered: list[tuple[int, int, int]] = []
        self.stored: dict[int, dict[int, int]] = {}  # key -> {position: token}

    @property
    def cells(self) -> int:
        return self._cells

    @property
    def cells_held(self) -> int:
        return len({id(cell) for cells in self.held.values() for cell in cells})

    def decode(self, slices: Row[Slice]) -> None:
        assert len({part.slot for part in slices}) == len(slices), "a slot stands twice in one batch"
        if self.cells_held + sum(part.count for part in slices) > self._cells:
            raise NoRoomError
        self.rows, self.embedded = {}, []
        embeds = slices[0].sequence.embeds
        assert all(part.sequence.embeds == embeds for part in slices), "all embed, or none"
        assert not embeds or sum(part.count for part in slices) <= EMBED_TOKENS
        row = -1
        for part in slices:
            held = self.held.setdefault(part.slot, [])
            assert part.count > 0
            assert len(held) == part.start, "positions must go on where the slot ends"
            assert [cell.token for cell in held] == part.sequence.tokens[: part.start], "the slot holds something else"
            held.extend(Cell(token) for token in part.tokens)
            row += part.count
            self.rows[row] = tuple(cell.token for cell in held)
            if embeds:
                self.embedded += zip(part.tokens, range(part.start, part.start + part.count), strict=True)
        self.batches.append([(part.sequence.request_id, part.count) for part in slices])

    def move(self, moves: Row[Move]) -> None:
        for move in moves:
            match move:
                case Copy(source, target, start, end):
                    held, copied = self.held.setdefault(target, []), self.held[source][start:end]
                    assert source != target
                    assert len(held) == start, "a copy must go on where the slot ends"
                    assert len(copied) == end - start > 0, "what is copied must be there"
                    held.extend(copied)
                case Cut(slot, start):
                    assert start <= len(self.held.get(slot, [])), "what is cut must be there"
                    self.held[slot] = self.held.get(slot, [])[:start]
                case SwapOut(slot, key, start, end):
                    assert key not in self.stored
                    assert 0 <= start < end <= len(self.held[slot]), "what is kept must be there"
                    self.stored[key] = {at: self.held[slot][at].token for at in range(start, end)}
                case SwapIn(key, slot, start, end):
                    held, stored = self.held.setdefault(slot, []), self.stored[key]
                    assert len(held) == start < end, "what comes back must go on where the slot ends"
                    assert self.cells_held + len(stored) <= self._cells, "there must be room to unpack it"
                    held.extend(Cell(stored[at]) for at in range(start, end))
                case Forget(key):
                    del self.stored[key]
                case Gather(runs):
                    self.gathered += [(run.slot, run.start, run.end) for run in runs]
                    for run in runs:
                        self.move_run(run.slot, run.start, run.end)

    def move_run(self, slot: int, start: int, end: int) -> None:
        held = self.held[slot]
        assert 0 <= start < end == len(held), "what is moved goes to the end of its slot"
        others = {id(cell) for other, cells in self.held.items() if other != slot for cell in cells}
        assert not others & {id(cell) for cell in held[start:]}, "a cell that another slot holds must stay"
        held[start:] = [Cell(cell.token) for cell in held[start:]]

    def hidden(self, start: int, count: int) -> Hidden:
        """What the tokens are, and where."""
        return np.asarray(self.embedded[start : start + count], np.float32)

    def matcher(self, _constraint: Constraint) -> Matcher:
        raise ConstraintError("this model takes no grammar")

    def sampler(self, _request: Submit, _matcher: Matcher | None) -> FakeSampler:
        return FakeSampler(self)

    def ranking(self, index: int, token: int, count: int) -> Ranking:
        """How long the history is stands for the log probability, as one can tell it from any other."""
        others = tuple(Likelihood(tuple(self.piece(other)), -float(other)) for other in range(count))
        return Likelihood(tuple(self.piece(token)), -float(len(self.rows[index]))), others

    def piece(self, token: int) -> bytes:
        return f"<{token}>".encode()

    def ends(self, token: int) -> bool:
        return token == END

    @staticmethod
    def token_after(history: tuple[int, ...]) -> int:
        return 1 + (sum(history) * 31 + len(history)) % 97
