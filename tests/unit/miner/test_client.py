"""What a client makes of its engine's death: who is failed, who is blamed, who can have the next engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from services.miner.engine.blame import Blame
from services.miner.engine.client import EngineClient
from services.miner.engine.flight import Flight, Work
from services.miner.engine.generation import EngineGoneError, Generation, RequestBlamedError
from services.miner.engine.messages import Cancel, FromEngine, Loaded, Occupancy, Output, Step, Submit, ToEngine
from services.miner.engine.process import EngineProcess
from services.miner.engine.watchdog import Watchdog

LOADED = Loaded(64, 64, "fake", 1000, 1000, "attention", 0.1)


class DyingProcess:
    """Says what the test wants it to say, and dies when the test wants it to."""

    def __init__(self) -> None:
        self.flight = Flight(Work.IDLE)
        self.sent: list[ToEngine] = []
        self._messages: asyncio.Queue[FromEngine | None] = asyncio.Queue()

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)

    async def receive(self) -> FromEngine | None:
        return await self._messages.get()

    async def stop(self) -> int:
        return -11

    def says(self, *names: str) -> None:
        """One step that shows something for each name."""
        outputs = tuple(Output(name, "x", 1) for name in names)
        self._messages.put_nowait(Step(outputs, Occupancy(cells=64)))

    def dies(self, work: Work, *names: str) -> None:
        self.flight = Flight(work, names)
        self._messages.put_nowait(None)


class Deaf:
    """An observer that keeps nothing."""

    def occupied(self, occupancy: Occupancy) -> None: ...

    def left_queue(self, seconds: float) -> None: ...

    def token(self, seconds: float, *, first: bool) -> None: ...


def with_client(work: Callable[[EngineClient, DyingProcess], Awaitable[None]]) -> None:
    async def run() -> None:
        process = DyingProcess()
        client = EngineClient(cast("EngineProcess", process), LOADED, Deaf(), Blame(), Watchdog(1000, 8))
        await work(client, process)

    asyncio.run(asyncio.wait_for(run(), 10))


def opened(client: EngineClient, *names: str) -> list[Generation]:
    return [client.open(Submit(name, tuple(name.encode()), 4)) for name in names]


async def error_of(generation: Generation) -> EngineGoneError:
    try:
        async for _ in generation:
            pass
    except EngineGoneError as error:
        return error
    raise AssertionError("it ended without an error")


def test_the_dead_engines_batch_fails_and_so_does_who_has_shown_something_and_the_rest_is_stranded() -> None:
    async def work(client: EngineClient, process: DyingProcess) -> None:
        shown, first, second, waiting = opened(client, "shown", "first", "second", "waiting")
        process.says("shown")
        process.dies(Work.DECODING, "first", "second")
        await client.gone.wait()
        for generation in (shown, first, second):
            assert not isinstance(await error_of(generation), RequestBlamedError)
        assert client.crash is not None
        assert not client.crash.for_nobody
        assert client.take_stranded() == [waiting]
        assert client.take_stranded() == []

    with_client(work)


def test_the_one_that_was_sampled_is_blamed() -> None:
    async def work(client: EngineClient, process: DyingProcess) -> None:
        sampled, other = opened(client, "sampled", "other")
        process.says("sampled", "other")
        process.dies(Work.SAMPLING, "sampled")
        await client.gone.wait()
        assert isinstance(await error_of(sampled), RequestBlamedError)
        assert not isinstance(await error_of(other), RequestBlamedError)

    with_client(work)


def test_a_closed_request_is_known_for_two_steps_and_then_its_neighbour_is_still_not_alone() -> None:
    async def work(client: EngineClient, process: DyingProcess) -> None:
        closed, neighbour = opened(client, "closed", "neighbour")
        closed.close()
        assert process.sent[-1] == Cancel("closed")
        for _ in range(3):
            process.says("neighbour")
        process.dies(Work.DECODING, "closed", "neighbour")
        await client.gone.wait()
        assert not isinstance(await error_of(neighbour), RequestBlamedError)

    with_client(work)


def test_a_request_that_is_closed_after_the_death_is_stranded_no_more() -> None:
    async def work(client: EngineClient, process: DyingProcess) -> None:
        waiting, closed = opened(client, "waiting", "closed")
        process.dies(Work.IDLE)
        await client.gone.wait()
        assert client.crash is not None
        assert client.crash.for_nobody
        closed.close()
        assert client.take_stranded() == [waiting]

    with_client(work)


def test_an_engine_that_is_told_to_stop_did_not_crash() -> None:
    async def work(client: EngineClient, process: DyingProcess) -> None:
        (generation,) = opened(client, "a")
        process.dies(Work.DECODING, "a")
        await client.stop()
        assert client.crash is None
        assert not isinstance(await error_of(generation), RequestBlamedError)

    with_client(work)
