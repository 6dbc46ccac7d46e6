"""The engine: one step is schedule, decode, sample. Knows no process, no socket and no library.

A cancelled request is gone before the next step; one that fails alone costs no other; the cache that turns out too full
preempts the newest sequence, which is computed again later.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.miner.engine.backend import Backend, NoRoomError, Sampler
from services.miner.engine.detokeniser import TextStream
from services.miner.engine.messages import FinishReason, Occupancy, Output, Step, Submit
from services.miner.engine.scheduler import Limits, Plan, Scheduler
from services.miner.engine.sequence import Sequence


@dataclass(slots=True)
class _Request:
    sequence: Sequence
    sampler: Sampler
    text: TextStream
    ignore_end: bool


class Engine:
    """Runs all submitted requests together, one step at a time."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self._backend = backend
        self._scheduler = Scheduler(limits)
        self._requests: dict[str, _Request] = {}
        self._refused: list[Output] = []

    @property
    def idle(self) -> bool:
        """No step is needed."""
        return self._scheduler.idle and not self._refused

    def submit(self, message: Submit) -> None:
        """Queue a request; one that can never fit ends with an error in the next step."""
        sequence = Sequence(message.request_id, list(message.prompt), len(message.prompt) + message.max_tokens)
        try:
            self._scheduler.add(sequence)
        except ValueError as error:
            self._refused.append(Output(message.request_id, "", 0, FinishReason.ERROR, str(error)))
            return
        sampler = self._backend.sampler(message)
        self._requests[message.request_id] = _Request(sequence, sampler, TextStream(message.stop), message.ignore_end)

    def cancel(self, request_id: str) -> None:
        """Free everything that a request holds; one that ended already is no error."""
        if request_id in self._requests:
            self._forget(self._requests[request_id])

    def step(self) -> Step:
        """Compute one step for all requests; raises EngineError when the model is broken."""
        refused, self._refused = self._refused, []
        plan = self._scheduler.schedule()
        for slot in plan.dropped:
            self._backend.drop(slot)
        outputs = [*refused, *self._execute(plan)]
        return Step(tuple(outputs), self.occupancy(), tuple(sequence.request_id for sequence in plan.started))

    def occupancy(self) -> Occupancy:
        """Return how full the engine is now."""
        scheduler = self._scheduler
        return Occupancy(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            cells_used=scheduler.cells_used,
            cells=scheduler.limits.cells,
            preemptions=scheduler.preemptions,
        )

    def _execute(self, plan: Plan) -> list[Output]:
        if not plan.slices:
            return []
        try:
            self._backend.decode(plan.slices)
        except NoRoomError:
            return self._make_room()
        self._scheduler.executed(plan)
        outputs, row = [], -1
        for part in plan.slices:
            row += part.count
            if part.samples:
                outputs.append(self._advance(self._requests[part.sequence.request_id], row))
        return outputs

    def _make_room(self) -> list[Output]:
        slot = self._scheduler.overflowed()
        if slot is not None:
            self._backend.drop(slot)
            return []
        alone = self._requests[self._scheduler.running[0].request_id]
        return [self._end(alone, "", FinishReason.ERROR, tokens=0, error="the cache has no room for this request")]

    def _advance(self, request: _Request, row: int) -> Output:
        token = request.sampler.sample(row)
        if self._backend.ends(token) and not request.ignore_end:
            return self._end(request, request.text.finish(), FinishReason.STOP, tokens=1)
        request.sequence.tokens.append(token)
        text = request.text.push(self._backend.piece(token))
        if request.text.stopped:
            return self._end(request, text, FinishReason.STOP, tokens=1)
        if request.sequence.exhausted:
            return self._end(request, text + request.text.finish(), FinishReason.LENGTH, tokens=1)
        return Output(request.sequence.request_id, text, 1)

    def _end(self, request: _Request, text: str, reason: FinishReason, *, tokens: int, error: str = "") -> Output:
        self._forget(request)
        return Output(request.sequence.request_id, text, tokens, reason, error)

    def _forget(self, request: _Request) -> None:
        del self._requests[request.sequence.request_id]
        slot = self._scheduler.remove(request.sequence)
        if slot is not None:
            self._backend.drop(slot)
        request.sampler.close()
