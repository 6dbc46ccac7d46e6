"""A model that computes nothing and checks every batch: no cell twice, positions contiguous, slots clean."""

from __future__ import annotations

from collections.abc import Sequence as Row

from services.miner.engine.backend import NoRoomError
from services.miner.engine.logprobs import Ranking
from services.miner.engine.messages import Likelihood, Submit
from services.miner.engine.scheduler import Slice
from services.miner.grammar.matcher import ConstraintError, Matcher
from services.miner.grammar.wire import Constraint

END = 0


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
    """`rows` are the token histories of the last batch; `cells` may be fewer than the scheduler was told."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self.held: dict[int, list[int]] = {}
        self.rows: dict[int, tuple[int, ...]] = {}
        self.batches: list[list[tuple[str, int]]] = []
        self.samplers = 0

    @property
    def cells(self) -> int:
        return self._cells

    def decode(self, slices: Row[Slice]) -> None:
        assert len({part.slot for part in slices}) == len(slices), "a slot stands twice in one batch"
        if sum(map(len, self.held.values())) + sum(part.count for part in slices) > self._cells:
            raise NoRoomError
        self.rows = {}
        row = -1
        for part in slices:
            held = self.held.setdefault(part.slot, [])
            assert part.count > 0
            assert len(held) == part.start, "positions must go on where the cache ends"
            assert held == part.sequence.tokens[: part.start], "the slot holds another sequence"
            held.extend(part.tokens)
            row += part.count
            self.rows[row] = tuple(held)
        self.batches.append([(part.sequence.request_id, part.count) for part in slices])

    def drop(self, slot: int) -> None:
        self.held.pop(slot, None)

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
