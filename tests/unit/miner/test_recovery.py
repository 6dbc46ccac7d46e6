"""Requests between two engines: handed on in their order, or told that none comes; their owners may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import cast

import pytest

from services.miner.engine.client import EngineClient
from services.miner.engine.generation import EngineGoneError, Generation
from services.miner.engine.messages import Submit
from services.miner.recovery import LoadFailures, Patience, Recovery


class NextEngine:
    """Takes over whatever it is given."""

    def __init__(self) -> None:
        self.adopted: list[Generation] = []

    def adopt(self, generations: Iterable[Generation]) -> None:
        self.adopted.extend(generations)


def stranded(*names: str) -> list[Generation]:
    return [Generation(Submit(name, (1, 2), 4), lambda _: None) for name in names]


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_the_next_engine_gets_them_once_and_in_their_order() -> None:
    async def work() -> None:
        recovery, first, second = Recovery(Patience()), NextEngine(), NextEngine()
        generations = stranded("a", "b", "c")
        recovery.hold(generations)
        assert recovery.waiting == 3
        recovery.started(cast("EngineClient", first))
        recovery.started(cast("EngineClient", second))
        assert first.adopted == generations
        assert second.adopted == []
        assert recovery.waiting == 0

    run(work())


def test_whoever_is_closed_while_it_waits_is_not_handed_on() -> None:
    async def work() -> None:
        recovery, engine = Recovery(Patience()), NextEngine()
        kept, closed = stranded("kept", "closed")
        recovery.hold([kept, closed])
        closed.close()
        recovery.started(cast("EngineClient", engine))
        assert engine.adopted == [kept]

    run(work())


def test_when_no_engine_comes_everybody_is_told_why() -> None:
    async def work() -> None:
        recovery = Recovery(Patience())
        generations = stranded("a", "b")
        recovery.hold(generations)
        recovery.give_up("the file is gone")
        for generation in generations:
            with pytest.raises(EngineGoneError, match="the file is gone"):
                await anext(generation)
        assert recovery.waiting == 0

    run(work())


def test_a_file_that_is_refused_three_times_in_a_row_is_not_tried_again() -> None:
    failures = LoadFailures()
    assert [failures.note("one") for _ in range(3)] == [1.0, 2.0, None]
    assert failures.note("other") == 1.0
    assert failures.note("one") == 1.0
    failures.clear()
    assert failures.note("one") == 1.0
