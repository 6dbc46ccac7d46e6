"""What runs next. Pure: no model, no clock, no I/O.

Invariants, whatever is added, removed or preempted at whatever step:
- the tokens of all running sequences together, each shared one counted once, never exceed the cells of the cache;
- a step decodes one token of every sequence that is past its prompt, before any prompt gets a share; where the two are
  `apart`, every other step does so, and the one between is the prompts';
- prompts take turns of at most `quantum` tokens, beginning after the one that was served last, so none stalls another;
- what is embedded has steps of its own, at most every other one while anything else can run;
- the oldest running sequence is never preempted, so every sequence ends.

One step: `schedule()` → the caller does `plan.moves` to the cache and decodes `plan.slices` → `executed(plan)` → the
caller appends sampled tokens and `remove()`s what ended. Where the cache has no room after all: `overflowed()`. Which
cells are shared and kept is the business of `prefix_cache`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from services.miner.engine.cache_moves import Move
from services.miner.engine.defragmenter import Defragmenter
from services.miner.engine.prefix_cache import PrefixCache
from services.miner.engine.sequence import Sequence

LOOK_AHEAD = 8  # waiting sequences that may be tried when the first does not fit
MAX_BYPASSES = 16  # later arrivals that may pass one waiting sequence before it is the only candidate
EMBED_TOKENS = 64  # a step; llama.cpp computes, and keeps, the logits of each
HEADROOM = 32  # cells kept for what an admitted sequence generates soon, so that it is not preempted at once


@dataclass(frozen=True, slots=True)
class Limits:
    """`sequences` running at once, `cells` of the cache, `batch_tokens` a step, `prefill_tokens` while some decode.

    `slots` (0: as many as sequences) are those that run and those that keep a prefix, for `horizon` computed tokens;
    after that, memory keeps up to `stored` tokens. Without `sharing` every sequence computes all of its tokens.
    `apart`: where answers and prompts wait, they have every other step each, instead of one together. `gather_steps`:
    how often what lies mixed in the cache is moved together (0: never). `embed_tokens` a step are embedded.
    """

    sequences: int
    cells: int
    batch_tokens: int = 512
    prefill_tokens: int = 256
    quantum: int = 128
    slots: int = 0
    horizon: int = 2_048
    stored: int = 0
    sharing: bool = True
    apart: bool = False
    gather_steps: int = 0
    embed_tokens: int = EMBED_TOKENS

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
    """One step: what to do to the cache first, sequences that left the queue, slices to decode together."""

    slices: tuple[Slice, ...]
    started: tuple[Sequence, ...] = ()
    moves: tuple[Move, ...] = ()


class Scheduler:
    """Holds the waiting and the running sequences and decides what the next step computes."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest admission first
        self.preemptions = 0
        slots = max(limits.slots, limits.sequences)
        self.cache = PrefixCache(
            cells=limits.cells, slots=slots, horizon=limits.horizon, stored=limits.stored, sharing=limits.sharing
        )
        self._admissions = 0
        self._ceiling = limits.cells  # lower after an overflow, until a sequence ends
        self._defragmenter = Defragmenter(limits.gather_steps)
        self._decoded_last = self._embedded_last = False
        self._last_served = 0  # `order` of the prompt that had the last turn

    @property
    def cells_used(self) -> int:
        """Cells that the running sequences need, their pending tokens included; a shared one counts once."""
        sampled = sum(len(each.tokens) - each.leaf.end for each in self.running if each.leaf is not None)
        return self.cache.pledged + sampled

    @property
    def idle(self) -> bool:
        """Nothing is running or waiting."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; raises ValueError when it could never fit the cache alone."""
        if sequence.limit > self.limits.cells or not sequence.tokens:
            raise ValueError(f"a sequence needs 1 to {self.limits.cells} cells, found {sequence.limit}")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended or was cancelled; what it computed is kept while there is room."""
        self._ceiling = self.limits.cells
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self.cache.leave(sequence)
        self._defragmenter.left()

    def overflowed(self) -> bool:
        """Take note that the cache had no room for the last plan, and give something up: what is kept, else the newest.

        False when one sequence runs alone: it can never go on. Until one ends, the others together hold less than now,
        so that they do not push each other out in turns.
        """
        if self.cache.evict_all():
            return True
        self._ceiling = max(self.cells_used - 1, 1)
        preempted = self.preempt_newest()
        self.cache.evict_all()
        return preempted

    def preempt_newest(self) -> bool:
        """Put the newest running sequence back to the front of the queue; False if it runs alone."""
        if len(self.running) < 2:  # noqa: PLR2004  (alone: there is nobody to make room for)
            return False
        sequence = self.running.pop()
        self.cache.leave(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1
        return True

    def schedule(self) -> Plan:
        """Decide the next step. Admits nobody in a step that had to preempt."""
        preempted = False
        while self.cells_used > self._ceiling and self.preempt_newest():
            preempted = True
        started = () if preempted else self._admit()
        slices = self._slices()
        self.cache.expire()
        self.cache.make_room(sum(part.count for part in slices))
        gathered = self._defragmenter.gather(self.running, prompts=any(part.count > 1 for part in slices))
        return Plan(slices, started, (*self.cache.take_moves(), *gathered))

    def _slices(self) -> tuple[Slice, ...]:
        able = {each: self.cache.ready(each) for each in self.running if each.pending > 1 or each.embeds}
        embeds = {each: count for each, count in able.items() if each.embeds}
        # To be looked at again: what others computed may have left one only its last token.
        prompts = {each: count for each, count in able.items() if each.pending > 1 and not each.embeds}
        embedding = self._prompt_slices(embeds, self.limits.embed_tokens)
        if embedding and not self._embedded_last:
            return tuple(embedding)
        decoding = [Slice(each, each.computed, 1) for each in self.running if each.pending == 1 and not each.embeds]
        prefill = self._prompt_slices(prompts, self._prefill_budget(len(decoding), prompts))
        if self.limits.apart and decoding and prefill:
            (decoding if self._decoded_last else prefill).clear()
        return (*decoding, *prefill) or tuple(embedding)

    def executed(self, plan: Plan) -> None:
        """Note that the cache now holds what `plan` computed."""
        self._embedded_last = any(part.sequence.embeds for part in plan.slices)
        if not self._embedded_last:
            decoded = sum(1 for part in plan.slices if part.sequence.pending == 1)
            self._decoded_last = decoded > 0
            self._defragmenter.note(decoded)
        for part in plan.slices:
            if part.sequence.pending > 1 or part.sequence.embeds:
                self._last_served = part.sequence.order
            self.cache.note_computed(part.sequence, part.count)
            if part.count > 1 or len(plan.slices) == 1:
                part.sequence.in_rows = part.sequence.computed

    def _admit(self) -> tuple[Sequence, ...]:
        started: list[Sequence] = []
        while len(self.running) < self.limits.sequences and (sequence := self._next_that_fits()) is not None:
            self.waiting.remove(sequence)
            self._admissions += 1
            sequence.order = self._admissions
            self.cache.enter(sequence)
            self.running.append(sequence)
            started.append(sequence)
        return tuple(started)

    def _next_that_fits(self) -> Sequence | None:
        room = (self._ceiling if self.running else self.limits.cells) - self.cells_used
        for candidate in islice(self.waiting, LOOK_AHEAD):
            headroom = min(HEADROOM, candidate.limit - len(candidate.tokens))
            if self.cache.needs(candidate) + headroom <= room:
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

    def _prefill_budget(self, decoding: int, able: Mapping[Sequence, int]) -> int:
        """Return how many prompt tokens are computed while so many that decode wait: more where more prompts wait.

        In a step of both, the tokens together are what is bounded, as they are computed in blocks: llama.cpp's
        attention takes as long for 129 as for 192.
        """
        if not decoding:
            return self.limits.batch_tokens
        prompts = sum(1 for count in able.values() if count)
        together = min(self.limits.prefill_tokens * max(prompts // decoding, 1), self.limits.batch_tokens)
        if self.limits.apart:
            return together
        return min(max(together - decoding, together // 2, 1), self.limits.batch_tokens - decoding)

    def _prompt_slices(self, able: Mapping[Sequence, int], budget: int) -> list[Slice]:
        """Divide `budget` tokens among the prompts in turns; `able`: what each may compute now."""
        prompts = [sequence for sequence in able if able[sequence]]
        later = [sequence for sequence in prompts if sequence.order > self._last_served]
        turns = deque(later + prompts[: len(prompts) - len(later)])
        shares: dict[Sequence, int] = {}
        while turns and budget > 0:
            sequence = turns.popleft()
            share = shares.get(sequence, 0)
            take = min(self.limits.quantum, able[sequence] - share, budget)
            shares[sequence] = share + take
            budget -= take
            if share + take < able[sequence]:
                turns.append(sequence)
        return [Slice(sequence, sequence.computed, share) for sequence, share in shares.items()]
