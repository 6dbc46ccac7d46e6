"""What to do about one pinned model. Pure: what was observed and what was tried go in, one action comes out.

Every action implies the state that people see, so that state and deed cannot disagree. Order of the questions: is it
verified; is it complete; does the chain veto it; what does the operator wish; has the chain been heard; is the pin
suspect; is it too early; is there room; which source.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from services.downloader.limits import DEFAULT_LIMITS, LONGEST_ROUND_SECONDS, MISMATCHES_PER_SOURCE, VERDICT_SECONDS
from shared.states import FailureReason, ModelState, Source
from shared.store.records import Control

SOURCE_ORDER = (Source.IMPORT, Source.HUGGINGFACE, Source.IPFS)


@dataclass(frozen=True, slots=True)
class IncomingData:
    """A generation of incoming data whose journal holds. Bytes."""

    generation: str
    source: Source
    size: int
    durable: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What the store shows of one pin now.

    `verified_at` is the receipt's time when the verified file is there and its receipt right; `unproven`: the file is
    there without that. `missing_bytes` is the room that a download lacks. `offered` are the sources that exist,
    `ipfs_tries` the wrong files that the gateways may deliver, `running` is the source whose turn has not ended.
    `vetoed`: a quorum of the chain lacks the digest; `unheard`: the chain is still being asked for the first time.
    """

    verified_at: float | None = None
    unproven: bool = False
    data: IncomingData | None = None
    missing_bytes: int = 0
    offered: tuple[Source, ...] = (Source.HUGGINGFACE,)
    ipfs_tries: int = MISMATCHES_PER_SOURCE
    running: Source | None = None
    vetoed: bool = False
    unheard: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Wrong bytes that count: from which source (None: nobody knows), with which digest."""

    source: Source | None
    found: str | None


@dataclass(frozen=True, slots=True)
class History:
    """What was tried.

    `asked_ago` and `heard_ago`: how many seconds ago a verdict was last asked for, and the verifier last heard of; a
    span, since the clock of the day may be set meanwhile.
    """

    control: Control = field(default_factory=Control)
    mismatches: tuple[Mismatch, ...] = ()
    asked_ago: float | None = None
    heard_ago: float | None = None
    turn_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Settle:
    """Verified: link it, remember it, tidy up."""


@dataclass(frozen=True, slots=True)
class AskVerdict:
    """Complete: ask the verifier."""


@dataclass(frozen=True, slots=True)
class AwaitVerdict:
    """Complete, and the verifier was asked or is at work."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Take bytes from `source`."""

    source: Source


@dataclass(frozen=True, slots=True)
class EndRound:
    """Every source has failed: set the time of the next round."""

    reason: FailureReason


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before `next_attempt_at`, or before a person or a new genesis acts when that is None."""

    state: ModelState
    reason: FailureReason | None = None
    next_attempt_at: float | None = None


Action = Settle | AskVerdict | AwaitVerdict | Fetch | EndRound | Rest


def next_action(observation: Observation, history: History, now: float) -> Action:
    """Decide; `now` and `next_attempt_at` are seconds since the epoch."""
    if observation.verified_at is not None:
        return Settle()
    if observation.unproven or (observation.data is not None and observation.data.complete):
        return AskVerdict() if _verdict_is_due(history) else AwaitVerdict()
    rest = _word_to_rest(observation, history) or _reason_to_rest(observation, history, now)
    return rest or _next_source(observation, history)


def _verdict_is_due(history: History) -> bool:
    signs = [ago for ago in (history.asked_ago, history.heard_ago) if ago is not None]
    return history.asked_ago is None or min(signs) >= VERDICT_SECONDS


def _word_to_rest(observation: Observation, history: History) -> Rest | None:
    """Return what somebody else's word makes of it: the chain's veto, the operator's wish, the chain unheard."""
    if observation.vetoed:
        return Rest(ModelState.VETOED)
    match history.control.wish:
        case "cancelled":
            return Rest(ModelState.FAILED, FailureReason.CANCELLED)
        case "paused":
            return Rest(ModelState.PAUSED)
        case _:
            return Rest(ModelState.ABSENT) if observation.unheard else None


def _reason_to_rest(observation: Observation, history: History, now: float) -> Rest | None:
    control = history.control
    if is_pin_suspect(history.mismatches) or not _trusted(observation, history):
        return Rest(ModelState.FAILED, FailureReason.HASH_MISMATCH)
    if (
        control.next_attempt_at is not None
        # One that is farther away than any wait was set by a clock that was wrong then, or is now.
        and now < control.next_attempt_at <= now + LONGEST_ROUND_SECONDS
        and not _has_local_file(observation, history)
    ):
        reason = control.reason or FailureReason.SOURCE_UNAVAILABLE
        return Rest(ModelState.FAILED, reason, control.next_attempt_at)
    if observation.missing_bytes > 0:
        return Rest(ModelState.FAILED, FailureReason.DISK_FULL, now + history.turn_seconds)
    return None


def _has_local_file(observation: Observation, history: History) -> bool:
    """A file that appeared meanwhile needs no waiting, unless it is room that is waited for."""
    untried = history.control.attempts.get(Source.IMPORT, 0) == 0
    return Source.IMPORT in observation.offered and untried and history.control.reason is not FailureReason.DISK_FULL


def _next_source(observation: Observation, history: History) -> Fetch | EndRound:
    if observation.running is not None:
        return Fetch(observation.running)  # its last failure is counted before its turn is over
    attempts = history.control.attempts
    for source in _trusted(observation, history):
        if attempts.get(source, 0) < DEFAULT_LIMITS.failures:
            return Fetch(source)
    if history.control.reason is FailureReason.UPSTREAM_MISMATCH:
        return EndRound(FailureReason.UPSTREAM_MISMATCH)
    return EndRound(FailureReason.SOURCE_UNAVAILABLE)


def is_pin_suspect(mismatches: tuple[Mismatch, ...]) -> bool:
    """Tell whether two sources gave bytes of one and the same wrong digest."""
    pairs = {(m.found, m.source) for m in mismatches if m.found is not None and m.source is not None}
    return any(count > 1 for count in Counter(found for found, _ in pairs).values())


def _trusted(observation: Observation, history: History) -> tuple[Source, ...]:
    """Return the offered sources that have not delivered wrong bytes too often; unowned ones count for all."""

    def is_trusted(source: Source) -> bool:
        tries = observation.ipfs_tries if source is Source.IPFS else MISMATCHES_PER_SOURCE
        return sum(m.source in {source, None} for m in history.mismatches) < tries

    return tuple(source for source in SOURCE_ORDER if source in observation.offered and is_trusted(source))
