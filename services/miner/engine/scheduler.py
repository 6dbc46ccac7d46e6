"""What runs next. Pure: no model, no clock, no I/O.

Invariants, whatever is added, removed or preempted at whatever step:
- the tokens of all running sequences together never exceed the cells of the cache;
- a step decodes one token of every sequence that is past its prompt, before any prompt gets a share;
- prompts take turns of at most `quantum` tokens, beginning after the one that was served last, so none stalls another;
- the oldest running sequence is never preempted, so every sequence ends.

One step: `schedule()` → the caller drops `plan.dropped` from the cache and decodes `plan.slices` → `executed(plan)` →
the caller appends sampled tokens and `remove()`s what ended. Where the cache has no room after all: `overflowed()`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from services.miner.engine.sequence import Sequence

LOOK_AHEAD = 8  # waiting sequences that may be tried when the first does not fit
MAX_BYPASSES = 16  # later arrivals that may pass one waiting sequence before it is the only candidate
HEADROOM = 32  # cells kept for what an admitted sequence generates soon, so that it is not preempted at once


@dataclass(frozen=True, slots=True)
class Limits:
    """`sequences` running at once, `cells` of the cache, `batch_tokens` a step, `prefill_tokens` beside decoding."""

    sequences: int
    cells: int
    batch_tokens: int = 512
    prefill_tokens: int = 256
    quantum: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.sequences <= self.batch_tokens or self.cells < 1 or min(self.prefill_tokens, self.quantum) < 1:
            raise ValueError("wanted 0 < sequences <= batch_tokens, and every other limit at least 1")


@dataclass(frozen=True, slots=True)
class Slice:
    """`count` tokens of a sequence from `start`; the last one `samples` when it is the sequence's last token."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether a token is sampled after this slice."""
        return self.start + self.count == len(self.sequence.tokens)

    @property
    def slot(self) -> int:
        """Where the cache keeps this sequence; raises ValueError for one that is not running."""
        if self.sequence.slot is None:
            raise ValueError(f"{self.sequence.request_id} holds no slot")
        return self.sequence.slot

    @property
    def tokens(self) -> list[int]:
        """The token ids to compute."""
        return self.sequence.tokens[self.start : self.start + self.count]


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: slots to drop first, sequences that left the queue, slices to decode together."""

    slices: tuple[Slice, ...]
    started: tuple[Sequence, ...] = ()
    dropped: tuple[int, ...] = ()


class Scheduler:
    """Holds the waiting and the running sequences and decides what the next step computes."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest admission first
        self.preemptions = 0
        self._free_slots = list(range(limits.sequences - 1, -1, -1))
        self._admissions = 0
        self._ceiling = limits.cells  # lower after an overflow, until a sequence ends
        self._last_served = 0  # `order` of the prompt that had the last turn

    @property
    def cells_used(self) -> int:
        """Cells that the running sequences need, their pending tokens included."""
        return sum(len(sequence.tokens) for sequence in self.running)

    @property
    def idle(self) -> bool:
        """Nothing is running or waiting."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; raises ValueError when it could never fit the cache alone."""
        if sequence.limit > self.limits.cells or not sequence.tokens:
            raise ValueError(f"a sequence needs 1 to {self.limits.cells} cells, found {sequence.limit}")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> int | None:
        """Forget a sequence that ended or was cancelled; return the slot that the caller must drop, if it had one."""
        self._ceiling = self.limits.cells
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return None
        self.running.remove(sequence)
        return self._free(sequence)

    def overflowed(self) -> int | None:
        """Take note that the cache had no room for the last plan; return the slot that was given up for the others.

        None when one sequence runs alone: it can never go on. Until one ends, the others together hold less than now,
        so that they do not push each other out in turns.
        """
        self._ceiling = max(self.cells_used - 1, 1)
        return self.preempt_newest()

    def preempt_newest(self) -> int | None:
        """Put the newest running sequence back to the front of the queue; return its slot, None if it runs alone."""
        if len(self.running) < 2:  # noqa: PLR2004  (alone: there is nobody to make room for)
            return None
        sequence = self.running.pop()
        slot = self._free(sequence)
        sequence.computed = 0
        self.waiting.appendleft(sequence)
        self.preemptions += 1
        return slot

    def schedule(self) -> Plan:
        """Decide the next step. Admits nobody in a step that had to preempt."""
        dropped = []
        while self.cells_used > self._ceiling and (slot := self.preempt_newest()) is not None:
            dropped.append(slot)
        started = () if dropped else self._admit()
        decoding = [Slice(sequence, sequence.computed, 1) for sequence in self.running if sequence.pending == 1]
        budget = self.limits.batch_tokens - len(decoding)
        if decoding:
            budget = min(budget, self.limits.prefill_tokens)
        return Plan((*decoding, *self._prompt_slices(budget)), started, tuple(dropped))

    def executed(self, plan: Plan) -> None:
        """Note that the cache now holds what `plan` computed."""
        for part in plan.slices:
            if part.sequence.pending > 1:
                self._last_served = part.sequence.order
            part.sequence.computed += part.count

    def _admit(self) -> tuple[Sequence, ...]:
        started: list[Sequence] = []
        while self._free_slots and (sequence := self._next_that_fits()) is not None:
            self.waiting.remove(sequence)
            self._admissions += 1
            sequence.order = self._admissions
            sequence.slot = self._free_slots.pop()
            self.running.append(sequence)
            started.append(sequence)
        return tuple(started)

    def _next_that_fits(self) -> Sequence | None:
        room = (self._ceiling if self.running else self.limits.cells) - self.cells_used
        for candidate in islice(self.waiting, LOOK_AHEAD):
            wanted = min(len(candidate.tokens) + HEADROOM, candidate.limit)
            if wanted <= room:
                self._count_bypasses(candidate)
                return candidate
            if candidate.bypassed >= MAX_BYPASSES:
                return None
        return None

    def _count_bypasses(self, winner: Sequence) -> None:
        for sequence in self.waiting:
            if sequence is winner:
                return
            sequence.bypassed += 1

    def _prompt_slices(self, budget: int) -> list[Slice]:
        prompts = [sequence for sequence in self.running if sequence.pending > 1]
        later = [sequence for sequence in prompts if sequence.order > self._last_served]
        turns = deque(later + prompts[: len(prompts) - len(later)])
        shares: dict[Sequence, int] = {}
        while turns and budget > 0:
            sequence = turns.popleft()
            share = shares.get(sequence, 0)
            take = min(self.limits.quantum, sequence.pending - share, budget)
            shares[sequence] = share + take
            budget -= take
            if share + take < sequence.pending:
                turns.append(sequence)
        return [Slice(sequence, sequence.computed, share) for sequence, share in shares.items()]

    def _free(self, sequence: Sequence) -> int:
        slot = sequence.slot
        if slot is None:
            raise ValueError(f"{sequence.request_id} holds no slot")
        sequence.slot = None
        self._free_slots.append(slot)
        return slot
