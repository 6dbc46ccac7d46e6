"""What one request gets of the engine, and keeps while one engine dies and another begins with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

from services.miner.engine.messages import Output, Submit
from shared.errors import EngineError


class EngineGoneError(EngineError):
    """The engine process ended by itself, while it worked for a request or loaded the model."""


class RequestBlamedError(EngineGoneError):
    """The engine died for this request alone; the same request is refused for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the engine died while it worked on this request", next_step="change the request")
        self.seconds = seconds


class Generation:
    """What one request gets: an asynchronous iterator of outputs that ends with the one that has a finish reason."""

    def __init__(self, submit: Submit, close: Callable[[Generation], None]) -> None:
        self.submit = submit
        self.submitted_at = time.monotonic()
        self.generated_tokens = 0
        self.reused_tokens = 0  # of the prompt, from the cache
        self.left_queue = False
        self.shown = False  # an output was handed over
        self.last_token_at = self.submitted_at
        self.on_close = close  # whoever holds it: a client, or the keeper between two engines
        self._outputs: asyncio.Queue[Output | EngineGoneError] = asyncio.Queue()
        self.finished = False

    @property
    def request_id(self) -> str:
        """Id of the request between API and engine."""
        return self.submit.request_id

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.submit.prompt)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        if self.finished:
            raise StopAsyncIteration
        output = await self._outputs.get()
        if isinstance(output, EngineGoneError):
            self.finished = True
            raise output
        self.finished = output.finish is not None
        return output

    def put(self, output: Output) -> None:
        """Hand over an output."""
        self.shown = True
        self._outputs.put_nowait(output)

    def fail(self, error: EngineGoneError) -> None:
        """Say that no more outputs come."""
        self._outputs.put_nowait(error)

    def close(self) -> None:
        """Say that nobody iterates any more; cancels the request unless it ended."""
        self.on_close(self)
