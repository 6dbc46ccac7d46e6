"""The connections of one turn at work on one file: who fetches what, and what follows from how that went.

Invariant: what is decided here is decided under one lock, under which nobody waits for network or disk. Order: `run`
starts the lanes → one of them finds out whether the source honours ranges → all of them fetch → `run` returns when
every byte is written, or raises what ended the work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.limits import Limits
from services.downloader.sources.base import Body, Connection, Supply, TransientSourceError
from services.downloader.transfer.file_keeper import FileKeeper
from services.downloader.transfer.governor import Governor
from services.downloader.transfer.lane import Lane
from services.downloader.transfer.patience import Patience
from services.downloader.transfer.places import Places
from services.downloader.transfer.planner import Claim, Planner
from services.downloader.transfer.stop_rules import GiveUp, Wait
from services.downloader.transfer.task import Failure, Task
from shared.errors import SourceUnavailableError

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.25
_JOIN_SECONDS = 3.0
# A source whose ranges worked may ignore one once; the second time it is taken at its word, and the file begins again.
_IGNORED_RANGES = 2


class GivenUpError(SourceUnavailableError):
    """The source has failed for this turn."""


class RangesIgnoredError(SourceUnavailableError):
    """A source whose ranges worked sends the whole file now: nothing of it can be mixed with what is there."""


class RangeSupport(Enum):
    """Whether the source honours ranges, as far as this crew has seen."""

    UNKNOWN = auto()
    HONOURED = auto()
    IGNORED = auto()


@dataclass(frozen=True, slots=True)
class Job:
    """What a crew works on.

    `size` is None while nobody has told it, `limit` the most that it may be. `begin(size)` starts a generation,
    `until()` is the byte that may not be reached yet, `on_bytes(count, received)` and `on_failure(error)` are told.
    """

    supply: Supply
    places: Places
    size: int | None
    limit: int
    limits: Limits
    interrupt: Interrupt
    keeper: FileKeeper
    patience: Patience
    begin: Callable[[int], None]
    until: Callable[[], int]
    on_bytes: Callable[[int, int], None]
    on_failure: Callable[[Failure], None]


@dataclass(slots=True)
class Crew:
    """Works on one job once. The first lane goes on with `connection`, which `interrupt` stops.

    `as_stream`: ranges are not to be relied on, so one connection asks for everything that is missing at once.
    """

    job: Job
    connection: Connection
    interrupt: Interrupt
    as_stream: bool = False
    _planner: Planner = field(init=False)
    _governor: Governor = field(init=False)
    _lanes: list[Lane] = field(init=False)
    _size: int | None = field(init=False)
    _until: int = 0
    _ranges: RangeSupport = RangeSupport.UNKNOWN
    _ignored: Counter[int] = field(default_factory=Counter)
    _hold_until: float = 0.0
    _running: dict[Claim, Lane] = field(default_factory=dict)
    _end: BaseException | None = None
    _cond: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        job = self.job
        self._size = job.size
        self._planner = Planner(job.keeper.held, job.size if job.size is not None else job.limit, job.limits)
        self._governor = Governor(min(job.limits.connections, job.supply.connections), time.monotonic())
        first = Lane(self, job.supply, 0, self.interrupt, self.connection)
        more = range(1, self._governor.limit)
        self._lanes = [first, *(Lane(self, job.supply, number, job.interrupt.child()) for number in more)]

    def run(self) -> None:
        """Fetch what is missing.

        Raises GivenUpError, RangesIgnoredError, PermanentSourceError, UpstreamMismatchError, StoreError, DiskFullError
        and the interrupt.
        """
        self._until = self.job.until()
        for lane in self._lanes:
            lane.start()
        try:
            self._supervise()
        finally:
            for lane in self._lanes:
                lane.interrupt.tell(Reason.DONE)
            with self._cond:
                self._cond.notify_all()
            deadline = time.monotonic() + _JOIN_SECONDS  # one that hangs in a look-up of a name is left behind
            for lane in self._lanes:
                lane.join(max(0.0, deadline - time.monotonic()))
        self.job.interrupt.check()
        if self._end is not None:
            raise self._end

    def _supervise(self) -> None:
        """Look after the lanes until the work is over; raises the interrupt, and what the disk raised."""
        with ExitStack() as ours:
            while True:
                until = self.job.until()
                with self._cond:
                    if self._is_over():
                        return
                    self._until = until
                    self._governor.look(time.monotonic(), self._planner.received)
                    is_ours = not self._running and until <= self._planner.first_missing
                    self._cond.notify_all()
                    self._cond.wait(_TICK_SECONDS)
                self.job.interrupt.check()
                self.job.keeper.raise_error()
                ours.close()
                if is_ours:  # the verifier has to make room first
                    ours.enter_context(self.job.patience.clock.ours())

    def _is_over(self) -> bool:
        return self._end is not None or self._planner.is_complete or self.job.interrupt.reason is not None

    # --- called by the lanes ----------------------------------------------------------------------------------------

    def next_task(self, lane: Lane) -> Task | None:
        """Wait for something to do; None when the work is over."""
        with self._cond:
            while not self._is_over():
                now = time.monotonic()
                ready_at = max(self._hold_until, lane.ready_at)
                if now < ready_at:
                    self._cond.wait(ready_at - now)
                    continue
                task = self._task(lane, now)
                if task is not None:
                    return task
                self._cond.wait(_TICK_SECONDS)
            return None

    def opened(self, lane: Lane, task: Task, body: Body) -> Claim:
        """An answer has begun: return what of it is to be kept; raises TransientSourceError for an ignored range."""
        claim = task.claim
        if body.whole and self._ranges is RangeSupport.HONOURED:
            self._ignored[task.place] += 1
            raise TransientSourceError("it ignored the range and sends the whole file")
        if not self.job.keeper.is_open or (body.whole and claim.at > 0):
            self.job.begin(body.size)  # until ranges are known to work, no other lane is at work
            claim = self._start_over(lane, claim, body.size, self.job.until())
        with self._cond:
            if body.whole:
                self._ranges = RangeSupport.IGNORED
                self._planner.widen(claim)
            else:
                self._ranges = RangeSupport.UNKNOWN if self.as_stream else RangeSupport.HONOURED
                claim.end = min(claim.end, body.end)
            self._cond.notify_all()
        return claim

    def keep(self, lane: Lane, claim: Claim, chunk: bytes | memoryview) -> bool:
        """Keep a chunk; tell whether the rest of the body is wanted."""
        own = chunk[: max(0, claim.left)]
        self._wait_for_room(lane, claim.at + len(own))
        self.job.keeper.write(claim.at, own)
        with self._cond:
            kept = self._planner.advance(claim, len(own), time.monotonic())
            received = self._planner.received
            is_parked = lane.number >= self._governor.allowed
            if self._planner.is_complete:
                self._cond.notify_all()
        self.job.patience.came(kept, received)
        self.job.on_bytes(len(chunk), received)
        return len(own) == len(chunk) and not is_parked and self._end is None

    def failed(self, lane: Lane, task: Task, claim: Claim, error: Failure) -> None:
        """The range did not come: wait, ask elsewhere, ask with fewer connections, or give the source up."""
        if claim.left == 0 and claim.is_cut:
            return
        self.job.on_failure(error)
        if isinstance(error, TransientSourceError):
            self._failed_for_now(lane, task, claim, error)
            return
        with self._cond:
            if not self.job.places.drop(task.place):
                self._finish(error)

    def released(self, lane: Lane, task: Task, claim: Claim) -> None:  # noqa: ARG002 - one shape for all
        """The lane has let go of the claim."""
        with self._cond:
            if claim.left == 0 and not claim.is_cut:
                self.job.places.worked(task.place)
            self._planner.release(claim)
            self._running.pop(claim, None)
            self._cond.notify_all()

    def crashed(self, error: BaseException) -> None:
        """A lane is at its end, and so is the work."""
        with self._cond:
            self._finish(error)

    # --- under the lock ---------------------------------------------------------------------------------------------

    def _task(self, lane: Lane, now: float) -> Task | None:
        if lane.number >= self._governor.allowed or (self._ranges is not RangeSupport.HONOURED and self._running):
            return None
        claim = self._planner.claim(now, self._until)
        if claim is None:
            return None
        if self.as_stream:
            self._planner.widen(claim)
        if claim.relieved in self._running:
            self._running[claim.relieved].interrupt.cut()
        self._running[claim] = lane
        place = self.job.places.pick(lane.number)
        began_at = self.job.patience.clock.now()
        return Task(claim, place, self._size, self.job.limit, began_at, claim.at, self._planner.received)

    def _finish(self, error: BaseException) -> None:
        if self._end is None:
            self._end = error
        self._cond.notify_all()

    # --- the lanes' own steps ---------------------------------------------------------------------------------------

    def _start_over(self, lane: Lane, before: Claim, size: int, until: int) -> Claim:
        """A generation has begun: plan it anew, and give this lane its first range."""
        with self._cond:
            self._size, self._until = size, until
            self._planner = Planner((), size, self.job.limits)
            claim = self._planner.claim(time.monotonic(), until)
            if claim is None:
                raise TransientSourceError("an empty file")
            self._running = {claim: lane}
            before.end = before.at
            return claim

    def _wait_for_room(self, lane: Lane, end: int) -> None:
        """In low-space mode: wait until the verifier's copy has come near enough."""
        if end <= self._until:
            return
        with self._cond, self.job.patience.clock.ours():
            while end > self._until and self._end is None:
                self._cond.wait(_TICK_SECONDS)
                lane.interrupt.check()

    def _failed_for_now(self, lane: Lane, task: Task, claim: Claim, error: TransientSourceError) -> None:
        with self._cond:
            self.job.places.missed(task.place)
            if self._ignored[task.place] >= _IGNORED_RANGES:
                if self.job.places.alive == [task.place]:
                    self._finish(RangesIgnoredError(error.message))
                else:  # another can go on from what there is
                    self.job.places.drop(task.place)
            came = self._planner.received - task.received
            if error.is_too_much and came > claim.at - task.at:
                # Others got on meanwhile: this is no failure of the source, and there may be fewer of us.
                now = time.monotonic()
                self._governor.refused(now)
                lane.ready_at = now + (error.retry_after or self.job.limits.first_wait_seconds)
                return
        verdict = self.job.patience.failed(task.began_at, error.retry_after)
        with self._cond:
            self._wait_or_give_up(lane, claim.at - task.at, error, verdict)
        if isinstance(verdict, Wait):
            model = self.job.keeper.pin.model_name
            log.info("trying again", model=model, error=error.message, seconds=round(verdict.seconds, 1))

    def _wait_or_give_up(
        self, lane: Lane, brought: int, error: TransientSourceError, verdict: Wait | GiveUp | None
    ) -> None:
        limits, now = self.job.limits, time.monotonic()
        match verdict:
            case GiveUp(why):
                self._finish(GivenUpError(f"{error.message} ({why})"))
            case Wait(seconds) if error.retry_after or self.job.patience.failures > 1:
                self._hold_until = now + seconds
            case Wait(seconds):
                lane.ready_at = now + (limits.soon_seconds if brought >= limits.stall_bytes else seconds)
            case None:
                lane.ready_at = now + limits.soon_seconds
