"""How `control.json` changes: after what happened to a download, and by an operator's word. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from services.downloader.limits import DEFAULT_LIMITS
from services.downloader.transfer.stop_rules import round_wait
from shared.states import FailureReason, Source
from shared.store.records import Control

MAX_MESSAGE = 1000
_MOST_ROUNDS = 1_000_000  # what the document says may be anything


class Verb(StrEnum):
    """What an operator may ask of a model."""

    DOWNLOAD = "download"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


def obey(control: Control, verb: Verb, now: float) -> Control:
    """Return the control document after an operator's word."""
    fresh: dict[str, Any] = {"attempts": {}, "rounds": 0, "reason": None, "message": "", "next_attempt_at": None}
    match verb:
        case Verb.PAUSE:
            return _with(control, wish="paused")
        case Verb.CANCEL:
            return _with(control, wish="cancelled")
        case Verb.RESUME:
            return _with(control, wish="run")
        case Verb.DOWNLOAD:
            return _with(control, wish="run", **fresh)
        case Verb.RETRY:
            return _with(control, wish="run", forgiven_before=now, **fresh)


def after_failures(control: Control, source: Source, failures: int) -> Control:
    """Remember how many tries in a row have brought no new byte."""
    return _with(control, attempts={**control.attempts, source: failures})


def after_give_up(control: Control, source: Source, message: str, reason: FailureReason | None) -> Control:
    """The source has failed for this round; an upstream mismatch stays the reason until the round ends."""
    earlier = f"{control.message}; " if control.message and any(s != source for s in control.attempts) else ""
    return _with(
        control,
        attempts={**control.attempts, source: DEFAULT_LIMITS.failures},
        reason=reason or control.reason,
        message=f"{earlier}{source}: {message}"[:MAX_MESSAGE],
    )


def after_round(control: Control, reason: FailureReason, now: float) -> Control:
    """Every source has failed: the next round begins later each time."""
    rounds = min(control.rounds, _MOST_ROUNDS) + 1
    return _with(control, attempts={}, rounds=rounds, reason=reason, next_attempt_at=now + round_wait(rounds))


def at_begin(control: Control) -> Control:
    """A source's turn begins: the waiting is over, and an old reason does not outlive its round."""
    if control.next_attempt_at is None:
        return control
    return _with(control, next_attempt_at=None, reason=None, message="")


def after_hold(control: Control, source: Source, reason: FailureReason, message: str, retry_at: float) -> Control:
    """Something on this machine is in the way; no source is to blame, but `source` has been tried.

    A local file that nobody has tried would not wait.
    """
    attempts = {**control.attempts, source: max(1, control.attempts.get(source, 0))}
    return _with(control, attempts=attempts, reason=reason, message=message[:MAX_MESSAGE], next_attempt_at=retry_at)


def after_complete(control: Control) -> Control:
    """All bytes are durable: what failed before does not matter any more."""
    return _with(control, attempts={}, rounds=0, reason=None, message="", next_attempt_at=None)


def after_verified(control: Control, verified_at: float) -> Control:
    """The pin has proved right: wrong bytes from before count no longer."""
    return Control(wish=control.wish, forgiven_before=max(control.forgiven_before, verified_at))


def _with(control: Control, **changes: Any) -> Control:  # noqa: ANN401 - fields of Control, validated below
    return Control.model_validate({**control.model_dump(), **changes})
