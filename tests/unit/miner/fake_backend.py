"""A model that computes nothing and checks every batch: no cell twice, positions contiguous, slots clean."""

from __future__ import annotations

from collections.abc import Sequence as Row

from services.miner.engine.backend import NoRoomError
from services.miner.engine.messages import Submit
from services.miner.engine.scheduler import Slice

END = 0


class FakeSampler:
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._backend.samplers += 1

    def sample(self, index: int) -> int:
        """A function of all tokens of the sequence, so that recomputing it gives the same."""
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

    def sampler(self, _request: Submit) -> FakeSampler:
        return FakeSampler(self)

    def piece(self, token: int) -> bytes:
        return f"<{token}>".encode()

    def ends(self, token: int) -> bool:
        return token == END

    @staticmethod
    def token_after(history: tuple[int, ...]) -> int:
        return 1 + (sum(history) * 31 + len(history)) % 97
