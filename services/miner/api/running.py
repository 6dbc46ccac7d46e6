"""One accepted request from its first output to its last, however it ends: deadline, disconnect, dead engine, error.

Whoever has a `Running` iterates `outputs()` and calls `end()`, which cancels what still runs and counts the request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import structlog
from fastapi import Request

from services.miner.api.admission import Accepted
from services.miner.api.choices import Choice, interleaved
from services.miner.api.errors import RETRY_SOON_SECONDS, ApiError, crashes_engine, invalid, unavailable
from services.miner.engine.generation import EngineGoneError, Generation, RequestBlamedError
from services.miner.engine.messages import FinishReason, Output, Submit
from services.miner.metrics import Endpoint, MinerMetrics, Outcome
from services.miner.served import ServedModel

LEFT_OUT_HEADER = "X-R3MES-Left-Out"  # messages of a conversation, or tokens of a bare prompt

T = TypeVar("T")


_log = structlog.get_logger("miner.request")


def log_ended(endpoint: Endpoint, outcome: Outcome, seconds: float, usage: Mapping[str, object]) -> None:
    """Write the one line of a request that reached the engine; its id is bound by `guard`."""
    numbers = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage}
    _log.info("ended", endpoint=endpoint, outcome=outcome, seconds=round(seconds, 3), **numbers)


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


class Running:
    """A request that the engine works on."""

    def __init__(
        self, served: ServedModel, accepted: Accepted, endpoint: Endpoint, metrics: MinerMetrics, seconds: float
    ) -> None:
        submits, first = accepted.submits, accepted.submits[0]
        self.served = served
        self.count = len(submits)
        # A client that sent more than was read can find out.
        self.headers = {LEFT_OUT_HEADER: str(accepted.left_out)} if accepted.left_out else {}
        self.logprobs = first.logprobs
        self.created = int(time.time())
        self._endpoint = endpoint
        self._metrics = metrics
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._outcome = Outcome.CANCELLED
        self._ended = False
        self._parameter = None if first.constraint is None else first.constraint.parameter
        self._generations = open_all(served, submits)
        metrics.accepted(len(first.prompt))

    @property
    def request_id(self) -> str:
        """Id of this request between API and engine, also in the answer."""
        return self._generations[0].request_id

    @property
    def usage(self) -> dict[str, object]:
        """OpenAI's usage numbers so far; the prompt counts once, however many answers it has."""
        first = self._generations[0]
        generated = sum(generation.generated_tokens for generation in self._generations)
        return {
            "prompt_tokens": first.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": first.prompt_tokens + generated,
            "prompt_tokens_details": {"cached_tokens": first.reused_tokens},
        }

    async def outputs(self) -> AsyncIterator[Choice]:
        """Yield what the engine gives; raises ApiError when it cannot finish."""
        try:
            async for choice in self._within_time():
                yield choice
            self._outcome = Outcome.OK
        except ApiError as error:
            self._outcome = error.outcome
            raise

    def end(self) -> None:
        """Cancel what still runs and count the request; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        for generation in self._generations:
            generation.close()
        seconds = time.monotonic() - self._generations[0].submitted_at
        self._metrics.ended(self._endpoint, self._outcome, seconds)
        log_ended(self._endpoint, self._outcome, seconds, self.usage)

    async def _within_time(self) -> AsyncIterator[Choice]:
        choices = interleaved(self._generations)
        while True:
            try:
                with as_api_errors(self._seconds):
                    async with asyncio.timeout_at(self._deadline):
                        choice = await anext(choices)
            except StopAsyncIteration:
                return
            refuse_failed(choice.output, self._parameter)
            yield choice


@contextmanager
def as_api_errors(seconds: float) -> Iterator[None]:
    """Raise what may end a wait for the engine, of at most so many seconds, as ApiError."""
    try:
        yield
    except TimeoutError as error:
        message = f"no complete answer within {seconds:g} s"
        raise ApiError(504, message, kind="server_error", code="timeout") from error
    except RequestBlamedError as error:
        raise crashes_engine(error.seconds) from error
    except EngineGoneError as error:
        raise unavailable(error.message, RETRY_SOON_SECONDS) from error


def refuse_failed(output: Output, parameter: str | None) -> None:
    """Raise ApiError for an output that is an error; `parameter` is the field to blame where the request is."""
    if output.finish is FinishReason.ERROR:
        if output.refused:
            raise invalid(output.error, parameter)
        raise ApiError(500, output.error, kind="server_error")


def open_all(served: ServedModel, submits: list[Submit]) -> list[Generation]:
    """Submit all; the caller must close each. Raises ApiError when the engine is gone."""
    opened: list[Generation] = []
    try:
        for submit in submits:
            opened.append(served.client.open(submit))  # noqa: PERF401  (those before a failure are closed)
    except EngineGoneError as error:
        for generation in opened:
            generation.close()
        raise unavailable(error.message, RETRY_SOON_SECONDS) from error
    return opened


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
