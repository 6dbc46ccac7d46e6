"""One accepted request from its first output to its last, however it ends: deadline, disconnect, dead engine, error.

Whoever has a `Running` iterates `outputs()` and calls `end()`, which cancels what still runs and counts the request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from fastapi import Request

from services.miner.api.errors import RETRY_SOON_SECONDS, ApiError, crashes_engine, unavailable
from services.miner.engine.generation import EngineGoneError, Generation, RequestBlamedError
from services.miner.engine.messages import FinishReason, Output, Submit
from services.miner.metrics import Endpoint, MinerMetrics, Outcome
from services.miner.served import ServedModel

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


class Running:
    """A request that the engine works on."""

    def __init__(
        self, served: ServedModel, submit: Submit, endpoint: Endpoint, metrics: MinerMetrics, seconds: float
    ) -> None:
        self.served = served
        self.created = int(time.time())
        self._endpoint = endpoint
        self._metrics = metrics
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._outcome = Outcome.CANCELLED
        self._ended = False
        self._generation = _open(served, submit)
        metrics.accepted(len(submit.prompt))

    @property
    def request_id(self) -> str:
        """Id of this request between API and engine, also in the answer."""
        return self._generation.request_id

    @property
    def usage(self) -> dict[str, object]:
        """OpenAI's usage numbers so far."""
        prompt, generated = self._generation.prompt_tokens, self._generation.generated_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": self._generation.reused_tokens},
        }

    async def outputs(self) -> AsyncIterator[Output]:
        """Yield what the engine gives; raises ApiError when it cannot finish."""
        try:
            async for output in self._within_time():
                yield output
            self._outcome = Outcome.OK
        except ApiError as error:
            self._outcome = error.outcome
            raise

    def end(self) -> None:
        """Cancel what still runs and count the request; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        self._generation.close()
        self._metrics.ended(self._endpoint, self._outcome, time.monotonic() - self._generation.submitted_at)

    async def _within_time(self) -> AsyncIterator[Output]:
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    output = await anext(self._generation)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                message = f"no complete answer within {self._seconds:g} s"
                raise ApiError(504, message, kind="server_error", code="timeout") from error
            except RequestBlamedError as error:
                raise crashes_engine(error.seconds) from error
            except EngineGoneError as error:
                raise unavailable(error.message, RETRY_SOON_SECONDS) from error
            if output.finish is FinishReason.ERROR:
                raise ApiError(500, output.error, kind="server_error")
            yield output


def _open(served: ServedModel, submit: Submit) -> Generation:
    try:
        return served.client.open(submit)
    except EngineGoneError as error:
        raise unavailable(error.message, RETRY_SOON_SECONDS) from error


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` returns; cancels it and raises ClientGoneError when the client leaves before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
