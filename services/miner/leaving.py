"""Models that others have overtaken: each answers what it was asked, then its engine ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from services.miner.served import ServedModel


class Leaving:
    """Order: `let` for each, `ended` before the process ends. `end` stops an engine."""

    def __init__(self, end: Callable[[ServedModel], Awaitable[None]], drain_seconds: float) -> None:
        self._end = end
        self._drain_seconds = drain_seconds
        self._tasks: dict[asyncio.Task[None], ServedModel] = {}

    def let(self, served: ServedModel, entered: asyncio.Event) -> None:
        """Give a model up, once no request is on its way to it (`entered`), when its answers are whole."""
        served.client.overtaken = True
        task = asyncio.create_task(self._drain(served, entered), name="leaving")
        self._tasks[task] = served
        task.add_done_callback(self._tasks.pop)

    async def answered(self) -> None:
        """Wait until all have given their answers."""
        for served in list(self._tasks.values()):
            await served.client.idle.wait()

    async def ended(self) -> None:
        """End all of them now."""
        left = dict(self._tasks)
        for task, served in left.items():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self._end(served)

    async def _drain(self, served: ServedModel, entered: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                await entered.wait()
                await served.client.quiet()
        await self._end(served)
