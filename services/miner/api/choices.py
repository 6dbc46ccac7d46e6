"""The n answers of one request: n sequences of the engine with the same prompt and different seeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from services.miner.api.tools.calls import ToolCall
from services.miner.engine.generation import Generation
from services.miner.engine.messages import Output, Submit


@dataclass(frozen=True, slots=True)
class Choice:
    """An output of the `index`-th answer, and calls of tools in it; the first is the answer's `first_call`-th."""

    index: int
    output: Output
    calls: tuple[ToolCall, ...] = ()
    first_call: int = 0
    ending: str | None = None

    @property
    def finish(self) -> str | None:
        """Why the answer ended, None while it goes on."""
        return self.ending or self.output.finish


def fan_out(submit: Submit, count: int) -> list[Submit]:
    """Return `count` requests to the engine; the first is `submit` itself."""
    seed = submit.sampling.seed
    return [submit] + [
        replace(
            submit,
            request_id=f"{submit.request_id}-{number}",
            sampling=replace(submit.sampling, seed=(seed + number) & 0xFFFFFFFF),
        )
        for number in range(1, count)
    ]


async def interleaved(generations: Sequence[Generation]) -> AsyncIterator[Choice]:
    """Yield what each gives as soon as it does, until all have ended; raises what the first to fail raises."""
    if len(generations) == 1:  # nearly all requests: no task for each token
        async for output in generations[0]:
            yield Choice(0, output)
        return
    waiting = {_next(generation): index for index, generation in enumerate(generations)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index, output = waiting.pop(task), task.result()
                if output.finish is None:
                    waiting[_next(generations[index])] = index
                yield Choice(index, output)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _next(generation: Generation) -> asyncio.Task[Output]:
    return asyncio.create_task(generation.__anext__())
