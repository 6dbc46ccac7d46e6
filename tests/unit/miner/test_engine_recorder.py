"""What the engine tells its flight recorder, and what a decode that was aborted leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Row

from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.backend import AbortedError
from services.miner.engine.engine import Engine
from services.miner.engine.flight import Work
from services.miner.engine.messages import Submit
from services.miner.engine.scheduler import Limits, Slice
from tests.unit.miner.fake_backend import FakeBackend

LIMITS = Limits(sequences=4, cells=64, batch_tokens=16, prefill_tokens=8, quantum=4)


class Diary:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.entries: list[tuple[Work, tuple[str, ...]]] = []

    def working(self, work: Work, request_ids: Iterable[str] = ()) -> None:
        self.entries.append((work, tuple(request_ids)))


class AbortingBackend(FakeBackend):
    """Aborts the decodes of the given numbers, and sees to it that the recorder knew of each decode before."""

    def __init__(self, diary: Diary, aborted: frozenset[int] = frozenset()) -> None:
        super().__init__(cells=64)
        self._diary = diary
        self._aborted = aborted
        self.decodes = 0

    def decode(self, slices: Row[Slice]) -> None:
        assert self._diary.entries[-1] == (Work.DECODING, tuple(part.sequence.request_id for part in slices))
        self.decodes += 1
        if self.decodes in self._aborted:
            raise AbortedError
        super().decode(slices)


def texts(aborted: frozenset[int]) -> dict[str, str]:
    diary = Diary()
    engine = Engine(AbortingBackend(diary, aborted), LIMITS, diary)
    engine.submit(Submit("a", (1, 2, 3, 4, 5, 6), 5))
    engine.submit(Submit("b", (9, 8, 7), 7))
    answers = {"a": "", "b": ""}
    while not engine.idle:
        for output in engine.step().outputs:
            answers[output.request_id] += output.text
    return answers


def test_every_decode_and_every_sampling_is_recorded_before_it_begins() -> None:
    diary = Diary()
    engine = Engine(AbortingBackend(diary), LIMITS, diary)
    engine.submit(Submit("a", (1,), 1))
    engine.submit(Submit("b", (2,), 1))
    engine.step()
    assert diary.entries == [
        (Work.DECODING, ("a", "b")),
        (Work.SAMPLING, ("a",)),
        (Work.SAMPLING, ("b",)),
    ]


@given(st.frozensets(st.integers(1, 20)))
def test_whatever_decodes_are_aborted_the_answers_are_the_same(aborted: frozenset[int]) -> None:
    assert texts(aborted) == texts(frozenset())
