"""The engine: one step is schedule, decode, sample. Knows no process, no socket and no library.

A cancelled request is gone before the next step; one that fails alone costs no other; the cache that turns out too full
preempts the newest sequence, which is computed again later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.miner.engine.backend import AbortedError, Backend, NoRoomError, Sampler
from services.miner.engine.detokeniser import TextStream
from services.miner.engine.embedding import Embedding
from services.miner.engine.flight import NoRecorder, Recorder, Work
from services.miner.engine.logprobs import LogprobStream
from services.miner.engine.messages import FinishReason, Occupancy, Output, Step, Submit
from services.miner.engine.openings import Openings
from services.miner.engine.scheduler import Limits, Plan, Scheduler
from services.miner.engine.sequence import Sequence
from services.miner.grammar.matcher import ConstraintError, Matcher


@dataclass(slots=True)
class _Request:
    sequence: Sequence
    sampler: Sampler
    text: TextStream
    ignore_end: bool
    likeliest: int
    logprobs: LogprobStream | None


@dataclass(slots=True)
class _Embedded:
    sequence: Sequence
    embedding: Embedding


class Engine:
    """Runs all submitted requests together, one step at a time."""

    def __init__(self, backend: Backend, limits: Limits, recorder: Recorder | None = None) -> None:
        self._recorder = recorder or NoRecorder()
        self._backend = backend
        self.scheduler = Scheduler(limits)
        self._requests: dict[str, _Request] = {}
        self._embeddings: dict[str, _Embedded] = {}
        self._openings = Openings()
        self._refused: list[Output] = []

    @property
    def idle(self) -> bool:
        """No step is needed."""
        return self.scheduler.idle and not self._refused and not self._openings

    def submit(self, message: Submit) -> None:
        """Queue a request, once its constraint is parsed; one that can never fit ends with an error in a later step."""
        if message.embeds:
            self._queue_text(message)
            return
        if message.constraint is None:
            self._queue(message, None)
            return
        try:
            self._openings.add(message, self._backend.matcher(message.constraint))
        except ConstraintError as error:
            self._refuse(message, str(error), refused=True)

    def _queue(self, message: Submit, matcher: Matcher | None) -> None:
        limit = len(message.prompt) + message.max_tokens
        sequence = Sequence(message.request_id, list(message.prompt), limit, reuses=message.reuses)
        try:
            self.scheduler.add(sequence)
        except ValueError as error:
            if matcher is not None:
                matcher.close()
            self._refuse(message, str(error), refused=False)
            return
        text = TextStream(message.stop)
        self._requests[message.request_id] = _Request(
            sequence,
            self._backend.sampler(message, matcher),
            text,
            ignore_end=message.ignore_end and matcher is None,
            likeliest=message.logprobs or 0,
            logprobs=None if message.logprobs is None else LogprobStream(text),
        )

    def _queue_text(self, message: Submit) -> None:
        sequence = Sequence(message.request_id, list(message.prompt), len(message.prompt), embeds=True)
        try:
            self.scheduler.add(sequence)
        except ValueError as error:
            self._refuse(message, str(error), refused=False)
            return
        self._embeddings[message.request_id] = _Embedded(sequence, Embedding(self._backend.pooling))

    def _refuse(self, message: Submit, reason: str, *, refused: bool) -> None:
        self._refused.append(Output(message.request_id, "", 0, FinishReason.ERROR, reason, refused))

    def cancel(self, request_id: str) -> None:
        """Free everything that a request holds; one that ended already is no error."""
        self._openings.cancel(request_id)
        if request_id in self._requests:
            self._forget(self._requests[request_id])
        elif request_id in self._embeddings:
            self.scheduler.remove(self._embeddings.pop(request_id).sequence)

    def step(self) -> Step:
        """Compute one step for all requests; raises EngineError when the model is broken."""
        for message, decided in self._openings.settled(wait=self.scheduler.idle):
            if isinstance(decided, Matcher):
                self._queue(message, decided)
            else:
                self._refuse(message, decided, refused=True)
        refused, self._refused = self._refused, []
        plan = self.scheduler.schedule()
        self._backend.move(plan.moves)
        outputs = [*refused, *self._execute(plan)]
        return Step(tuple(outputs), self.occupancy(), tuple(sequence.request_id for sequence in plan.started))

    def occupancy(self) -> Occupancy:
        """Return how full the engine is now."""
        scheduler = self.scheduler
        return Occupancy(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._openings),
            cells_used=scheduler.cells_used,
            cells=scheduler.limits.cells,
            preemptions=scheduler.preemptions,
            stored=scheduler.cache.stored,
        )

    def _execute(self, plan: Plan) -> list[Output]:
        if not plan.slices:
            return []
        self._recorder.working(Work.DECODING, (part.sequence.request_id for part in plan.slices))
        try:
            self._backend.decode(plan.slices)
        except AbortedError:
            return []  # as if it had not been planned; the cancels come before the next step
        except NoRoomError:
            return self._make_room()
        self.scheduler.executed(plan)
        if plan.slices[0].sequence.embeds:
            return self._embed(plan)
        sampled, row = [], -1
        for part in plan.slices:
            row += part.count
            if part.samples:
                sampled.append((self._requests[part.sequence.request_id], row))
        for request, row in sampled:
            request.sampler.begin(row)
        return [self._sample(request, row) for request, row in sampled]

    def _embed(self, plan: Plan) -> list[Output]:
        outputs, row = [], 0
        for part in plan.slices:
            embedded = self._embeddings[part.sequence.request_id]
            embedded.embedding.add(part.start, self._backend.hidden(row, part.count))
            row += part.count
            if not part.sequence.pending:
                self.cancel(part.sequence.request_id)
                vector = embedded.embedding.vector()
                outputs.append(Output(part.sequence.request_id, "", 0, FinishReason.STOP, embedding=vector))
        return outputs

    def _make_room(self) -> list[Output]:
        if self.scheduler.overflowed():
            return []
        alone = self.scheduler.running[0].request_id
        self.cancel(alone)
        return [Output(alone, "", 0, FinishReason.ERROR, "the cache has no room for this request")]

    def _sample(self, request: _Request, row: int) -> Output:
        self._recorder.working(Work.SAMPLING, (request.sequence.request_id,))
        is_first = request.sequence.generated == 0
        output = self._advance(request, row)
        return replace(output, reused=request.sequence.reused) if is_first else output

    def _advance(self, request: _Request, row: int) -> Output:
        try:
            token = request.sampler.sample(row)
        except ConstraintError as error:
            return self._end(request, "", FinishReason.ERROR, tokens=0, error=str(error), refused=True)
        if self._backend.ends(token) and not request.ignore_end:
            return self._end(request, request.text.finish(), FinishReason.STOP, tokens=1)
        if request.logprobs is not None:
            request.logprobs.push(self._backend.ranking(row, token, request.likeliest))
        request.sequence.tokens.append(token)
        text = request.text.push(self._backend.piece(token))
        if request.text.stopped:
            return self._end(request, text, FinishReason.STOP, tokens=1)
        if request.sequence.exhausted:
            return self._end(request, text + request.text.finish(), FinishReason.LENGTH, tokens=1)
        logprobs = () if request.logprobs is None else request.logprobs.shown()
        return Output(request.sequence.request_id, text, 1, logprobs=logprobs)

    def _end(
        self,
        request: _Request,
        text: str,
        reason: FinishReason,
        *,
        tokens: int,
        error: str = "",
        refused: bool = False,
    ) -> Output:
        self._forget(request)
        logprobs = () if request.logprobs is None else request.logprobs.rest()
        return Output(request.sequence.request_id, text, tokens, reason, error, refused, logprobs)

    def _forget(self, request: _Request) -> None:
        del self._requests[request.sequence.request_id]
        self.scheduler.remove(request.sequence)
        request.sampler.close()
