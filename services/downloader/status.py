"""One model as people see it, from the action that was decided and what runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.downloader.reconcile import (
    Action,
    AskVerdict,
    AwaitVerdict,
    EndRound,
    Fetch,
    IncomingData,
    Rest,
    Settle,
)
from services.downloader.transfer.progress import Snapshot
from shared.genesis import ModelPin
from shared.states import FailureReason, ModelState, ModelStatus, Source

_GB = 10**9


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a pin beside the action. `running`: its transfer, if one runs. Bytes."""

    data: IncomingData | None = None
    running: Snapshot | None = None
    hashed_bytes: int = 0
    verified_size: int | None = None
    verified_at: float | None = None
    verified_source: Source | None = None
    missing_bytes: int = 0
    message: str = ""


def compose(pin: ModelPin, action: Action, seen: Seen, now: float) -> ModelStatus:
    """Return the status document; `now` is its `updated_at`."""
    state, reason, next_attempt_at = _state(action, seen)
    received, expected = _bytes(pin, state, seen)
    running = seen.running if state is ModelState.DOWNLOADING else None
    source = running.source if running else (seen.data.source if seen.data else seen.verified_source)
    return ModelStatus(
        sha256=pin.sha256,
        model_name=pin.model_name,
        file_name=pin.file_name,
        state=state,
        reason=reason,
        message=_message(state, reason, seen),
        source=source,
        received_bytes=received,
        expected_bytes=expected,
        hashed_bytes=_hashed(state, received, seen),
        bytes_per_second=running.bytes_per_second if running else None,
        eta_seconds=running.eta_seconds if running else None,
        next_attempt_at=next_attempt_at,
        verified_at=seen.verified_at,
        updated_at=now,
    )


def _state(action: Action, seen: Seen) -> tuple[ModelState, FailureReason | None, float | None]:
    match action:
        case Settle():
            return ModelState.VERIFIED, None, None
        case AskVerdict() | AwaitVerdict():
            return ModelState.VERIFYING, None, None
        case Fetch():
            return (ModelState.ABSENT if seen.running is None else ModelState.DOWNLOADING), None, None
        case EndRound(reason):
            return ModelState.FAILED, reason, None
        case Rest(state, reason, next_attempt_at):
            return state, reason, next_attempt_at


def _bytes(pin: ModelPin, state: ModelState, seen: Seen) -> tuple[int, int | None]:
    if state is ModelState.VERIFIED:
        size = seen.verified_size if seen.verified_size is not None else pin.size_bytes
        return size or 0, size
    if seen.running is not None:  # also one that was told to stop: what came is not durable yet, and does not go back
        return seen.running.received, seen.running.expected or pin.size_bytes
    if seen.data is not None:
        return seen.data.durable, seen.data.size
    return 0, pin.size_bytes


def _hashed(state: ModelState, received: int, seen: Seen) -> int:
    match state:
        case ModelState.VERIFIED:
            return received
        case ModelState.VERIFYING | ModelState.DOWNLOADING | ModelState.PAUSED:
            return min(seen.hashed_bytes, received) if received else seen.hashed_bytes
        case _:
            return 0


def _message(state: ModelState, reason: FailureReason | None, seen: Seen) -> str:
    match state, reason:
        case ModelState.FAILED, FailureReason.DISK_FULL if seen.missing_bytes:
            return f"{seen.missing_bytes / _GB:.2f} GB ({seen.missing_bytes} bytes) more must be free"
        case ModelState.FAILED, FailureReason.HASH_MISMATCH:
            return (
                "the bytes that came do not have the pinned SHA-256: the pin or the sources are wrong; "
                "correct the genesis, or ask for a retry"
            )
        case ModelState.FAILED, FailureReason.CANCELLED:
            return "cancelled; the bytes so far are kept for a later download"
        case ModelState.ABSENT, _:
            return seen.message or "waits for its turn"
        case _:
            return seen.message
