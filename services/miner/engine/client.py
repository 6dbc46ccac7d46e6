"""Requests on one side, one engine process on the other: who gets what of a step, and what happens when it ends.

Order: `start` (which waits until the model is loaded) → `open` a generation for each request and iterate it → `stop`.
A generation that is closed before its end cancels its request; when the engine dies, open ones raise EngineGoneError.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, Self

from services.miner.engine.messages import Cancel, Load, Loaded, LoadFailed, Occupancy, Output, Step, Submit
from services.miner.engine.process import EngineProcess
from shared.errors import EngineError


class EngineGoneError(EngineError):
    """The engine process ended by itself, while it worked for a request or loaded the model."""


class Observer(Protocol):
    """Who wants to know what the engine does; times are in seconds."""

    def occupied(self, occupancy: Occupancy) -> None:
        """Take how full the engine is after a step."""
        ...

    def left_queue(self, seconds: float) -> None:
        """Take how long a request waited."""
        ...

    def token(self, seconds: float, *, first: bool) -> None:
        """Take a token and the time since the request (the first) or since the token before."""
        ...

    def reused(self, tokens: int) -> None:
        """Take how many tokens of a prompt were in the cache already."""
        ...


class Generation:
    """What one request gets: an asynchronous iterator of outputs that ends with the one that has a finish reason."""

    def __init__(self, request_id: str, prompt_tokens: int, close: Callable[[Generation], None]) -> None:
        self.request_id = request_id
        self.submitted_at = time.monotonic()
        self.prompt_tokens = prompt_tokens
        self.generated_tokens = 0
        self.reused_tokens = 0  # of the prompt, from the cache
        self.left_queue = False
        self.last_token_at = self.submitted_at
        self._close = close
        self._outputs: asyncio.Queue[Output | None] = asyncio.Queue()
        self.finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        if self.finished:
            raise StopAsyncIteration
        output = await self._outputs.get()
        if output is None:
            self.finished = True
            raise EngineGoneError("the engine stopped while it worked on this request", next_step="send it again")
        self.finished = output.finish is not None
        return output

    def put(self, output: Output | None) -> None:
        """Hand over an output; None means that the engine is gone."""
        self._outputs.put_nowait(output)

    def close(self) -> None:
        """Say that nobody iterates any more; cancels the request unless it ended."""
        self._close(self)


class EngineClient:
    """A loaded engine. `gone` is set once its process ended, whoever ended it."""

    def __init__(self, process: EngineProcess, loaded: Loaded, observer: Observer) -> None:
        self.loaded = loaded
        self.occupancy = Occupancy(cells=loaded.cells)
        self.gone = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._process = process
        self._observer = observer
        self._open: dict[str, Generation] = {}
        self._listener = asyncio.create_task(self._listen(), name="engine-listener")

    @classmethod
    async def start(cls, load: Load, log_level: str, observer: Observer) -> Self:
        """Start an engine and wait until it has loaded; EngineError when it refuses, EngineGoneError when it dies."""
        try:
            process = await EngineProcess.start(load.descriptor, log_level)
        except OSError as error:
            raise EngineError(f"the engine process does not start: {error}") from error
        try:
            process.send(load)
            answer = await process.receive()
        except BaseException:
            await process.stop()
            raise
        if isinstance(answer, Loaded):
            return cls(process, answer, observer)
        code = await process.stop()
        if isinstance(answer, LoadFailed):
            raise EngineError(answer.reason)
        raise EngineGoneError(f"the engine process died while it loaded the model ({describe_exit(code)})")

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    @property
    def open_requests(self) -> int:
        """Requests that were submitted and neither ended nor were closed."""
        return len(self._open)

    def open(self, submit: Submit) -> Generation:
        """Submit a request; the caller must `close()` what it gets. Raises EngineGoneError."""
        if self.gone.is_set():
            raise EngineGoneError("the engine is not running", next_step="send it again")
        generation = Generation(submit.request_id, len(submit.prompt), self._closed)
        self._open[submit.request_id] = generation
        self.idle.clear()
        self._process.send(submit)
        return generation

    async def stop(self) -> int:
        """End the process; open generations raise. Returns its exit code (negative: the signal)."""
        code = await self._process.stop()
        await self._listener
        return code

    async def _listen(self) -> None:
        while (message := await self._process.receive()) is not None:
            if isinstance(message, Step):
                self._deliver(message)
        self.gone.set()
        for generation in list(self._open.values()):
            generation.put(None)

    def _deliver(self, step: Step) -> None:
        self.occupancy = step.occupancy
        self._observer.occupied(step.occupancy)
        now = time.monotonic()
        for request_id in step.started:
            generation = self._open.get(request_id)
            if generation is not None and not generation.left_queue:  # a preempted one starts twice
                generation.left_queue = True
                self._observer.left_queue(now - generation.submitted_at)
        for output in step.outputs:
            generation = self._open.get(output.request_id)
            if generation is not None:
                self._hand_over(generation, output, now)

    def _hand_over(self, generation: Generation, output: Output, now: float) -> None:
        if output.tokens:
            self._observer.token(now - generation.last_token_at, first=generation.generated_tokens == 0)
            generation.last_token_at = now
            generation.generated_tokens += output.tokens
        if output.reused:
            generation.reused_tokens = output.reused
            self._observer.reused(output.reused)
        generation.put(output)
        if output.finish is not None:
            self._remove(output.request_id)

    def _closed(self, generation: Generation) -> None:
        if self._open.get(generation.request_id) is generation:
            self._remove(generation.request_id)
            self._process.send(Cancel(generation.request_id))

    def _remove(self, request_id: str) -> None:
        del self._open[request_id]
        if not self._open:
            self.idle.set()


def describe_exit(code: int) -> str:
    """Return an exit code of a child in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
