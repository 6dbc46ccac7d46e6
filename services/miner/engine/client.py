"""Requests on one side, one engine process on the other: who gets what of a step, and what happens when it ends.

Order: `start` (which waits until the model is loaded) → `open` a generation for each request and iterate it → `stop`.
A generation that is closed before its end cancels its request. When the engine dies, those that it worked for and those
that have shown something raise EngineGoneError; the others are `stranded`, for the next engine to `adopt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

import structlog

from services.miner.engine.backend import GpuGoneError
from services.miner.engine.blame import Blame, fingerprint
from services.miner.engine.flight import Work
from services.miner.engine.generation import EngineGoneError, Generation, RequestBlamedError
from services.miner.engine.messages import (
    Cancel,
    FinishReason,
    Load,
    Loaded,
    LoadFailed,
    Occupancy,
    Output,
    Step,
    Submit,
)
from services.miner.engine.process import EngineProcess
from services.miner.engine.watchdog import Watchdog, WatchdogLimits
from shared.errors import EngineError

MOST_LEAVING = 256  # closed requests that are kept until the engine's next step; beyond, nobody of them is blamed
DOING = {
    Work.LOADING: "while it loaded",
    Work.IDLE: "between two steps",
    Work.ADMITTING: "while it took a request in",
    Work.DECODING: "in a decode",
    Work.SAMPLING: "while it sampled",
}
GONE = "the engine stopped while it worked on this request"

_log = structlog.get_logger("miner.engine")


@dataclass(frozen=True, slots=True)
class Crash:
    """How an engine ended by itself: what it did, for how many requests, how many of them are blamed, its exit."""

    work: Work
    requests: int
    blamed: int
    stuck: bool
    exit_code: int

    @property
    def for_nobody(self) -> bool:
        """No request can be to blame."""
        return self.requests == 0

    def describe(self) -> str:
        """Return it in words, for the log and for `/readyz`."""
        why = "stuck" if self.stuck else describe_exit(self.exit_code)
        return f"the engine died {DOING[self.work]} ({why})"


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


class EngineClient:
    """A loaded engine. `gone` is set once its process ended, whoever ended it; `crash` says how, if nobody did."""

    def __init__(
        self, process: EngineProcess, loaded: Loaded, observer: Observer, blame: Blame, watchdog: Watchdog
    ) -> None:
        self.loaded = loaded
        self.crash: Crash | None = None
        self.overtaken = False  # another engine says how full the miner is
        self.stranded: list[Generation] = []
        self.occupancy = Occupancy(cells=loaded.cells)
        self.gone = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.idle_since = time.monotonic()  # while `idle` is set
        self._process = process
        self._observer = observer
        self._open: dict[str, Generation] = {}
        self._leaving: dict[str, Submit] = {}  # closed since the last step; the engine may still work for them
        self._left: dict[str, Submit] = {}  # closed in the step before that
        self._blame = blame
        self._watchdog = watchdog
        self._stopping = self._stuck = False
        self._watcher = asyncio.create_task(self._watch(), name="engine-watchdog")
        self._listener = asyncio.create_task(self._listen(), name="engine-listener")

    @classmethod
    async def start(cls, load: Load, log_level: str, observer: Observer, blame: Blame, limits: WatchdogLimits) -> Self:
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
            return cls(process, answer, observer, blame, Watchdog(answer.parameters, load.batch_tokens, limits))
        code = await process.stop()
        if isinstance(answer, LoadFailed):
            raise GpuGoneError(answer.reason) if answer.gpu_gone else EngineError(answer.reason)
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
        generation = Generation(submit, self._closed)
        self._send(generation)
        return generation

    def adopt(self, generations: Iterable[Generation]) -> None:
        """Begin anew with what another engine stranded."""
        for generation in generations:
            generation.on_close = self._closed
            self._send(generation)

    def _send(self, generation: Generation) -> None:
        self._open[generation.request_id] = generation
        self.idle.clear()
        self._process.send(generation.submit)

    def take_stranded(self) -> list[Generation]:
        """Return, once, what another engine may begin anew."""
        stranded, self.stranded = self.stranded, []
        return stranded

    async def quiet(self) -> None:
        """Wait until every request is answered, or no more answers come."""
        waits = [asyncio.create_task(event.wait()) for event in (self.idle, self.gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> int:
        """End the process; open generations raise. Returns its exit code (negative: the signal)."""
        self._stopping = True
        code = await self._process.stop()
        await self._listener
        return code

    async def _listen(self) -> None:
        while (message := await self._process.receive()) is not None:
            if isinstance(message, Step):
                self._deliver(message)
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        if not self._stopping:
            self._take_stock(await self._process.stop())
        else:
            for generation in self._open.values():
                generation.fail(EngineGoneError(GONE, next_step="send it again"))
        self.gone.set()

    async def _watch(self) -> None:
        stuck = False
        while not stuck:
            await asyncio.sleep(self._watchdog.limits.look_seconds)
            stuck = self._watchdog.look(time.monotonic(), waited_for=bool(self._open))
        _log.error("the engine is stuck and is killed", silent_for=round(self._watchdog.bound, 1))
        self._stuck = True
        self._process.kill()

    def _take_stock(self, code: int) -> None:
        """Blame, and set apart whoever can have another engine."""
        flight = self._process.flight
        known = {**self._left, **self._leaving, **{name: one.submit for name, one in self._open.items()}}
        working_for = {name: fingerprint(known[name]) for name in flight.request_ids if name in known}
        others = len(flight.request_ids) - len(working_for)
        blamed = self._blame.crashed(working_for.values(), time.monotonic(), others=others)
        self.crash = Crash(flight.work, len(flight.request_ids), len(blamed), self._stuck, code)
        for name, generation in list(self._open.items()):
            if working_for.get(name) in blamed:
                generation.fail(RequestBlamedError(self._blame.seconds))
            elif name in working_for or generation.shown:
                generation.fail(EngineGoneError(GONE, next_step="send it again"))
            else:
                self.stranded.append(generation)
                self._remove(name)

    def _deliver(self, step: Step) -> None:
        self._watchdog.stepped()
        self._left, self._leaving = self._leaving, {}
        self.occupancy = step.occupancy
        if not self.overtaken:
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
            if output.finish is not FinishReason.ERROR:
                self._blame.answered(generation.submit)
            self._remove(output.request_id)

    def _closed(self, generation: Generation) -> None:
        if generation in self.stranded:  # its owner left before the next engine came
            self.stranded.remove(generation)
        if self._open.get(generation.request_id) is generation:
            self._remove(generation.request_id)
            if len(self._leaving) < MOST_LEAVING:
                self._leaving[generation.request_id] = generation.submit
            self._process.send(Cancel(generation.request_id))

    def _remove(self, request_id: str) -> None:
        del self._open[request_id]
        if not self._open:
            self.idle.set()
            self.idle_since = time.monotonic()


def describe_exit(code: int) -> str:
    """Return an exit code of a child in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
