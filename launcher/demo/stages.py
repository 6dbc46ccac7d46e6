"""What the statuses of a model say about the demo's stages: how long each took, and whether it failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import (
    DiskFullError,
    IntegrityError,
    NotReadyError,
    R3mesError,
    SourceUnavailableError,
)
from shared.states import FailureReason, ModelState, ModelStatus


@dataclass(slots=True)
class StageClock:
    """Times of one model's way, taken from its statuses in order; all times are seconds of one monotonic clock."""

    download_began: float | None = None
    download_ended: float | None = None
    verified: float | None = None
    was_there: bool = False

    def observe(self, status: ModelStatus, now: float) -> None:
        """Take one status into account."""
        match status.state:
            case ModelState.DOWNLOADING:
                self.download_began = now if self.download_began is None else self.download_began
                self.download_ended = now if is_received(status) else None
            case ModelState.VERIFYING if self.download_ended is None:
                self.download_ended = now
            case ModelState.VERIFIED if self.verified is None:
                self.was_there = self.download_began is None and self.download_ended is None
                self.verified = now
            case _:
                pass

    @property
    def download_seconds(self) -> float | None:
        """From the first status of a download to its last byte; None when nothing was downloaded."""
        return _between(self.download_began, self.download_ended)

    @property
    def verify_seconds(self) -> float | None:
        """From the last byte to the promotion; None when nothing was verified now."""
        return _between(self.download_ended, self.verified)


def is_received(status: ModelStatus) -> bool:
    """Tell whether every byte is here."""
    return bool(status.expected_bytes) and status.received_bytes >= (status.expected_bytes or 0)


def failure(status: ModelStatus) -> R3mesError | None:
    """Return the error that ends the demo, or None while the model may still come."""
    if status.state is ModelState.VETOED:
        return IntegrityError(f"the chain does not agree with the genesis: {status.message}")
    if status.state is not ModelState.FAILED or status.reason is None:
        return None
    return _error_of(status.reason, status.message or status.reason.value)


def _error_of(reason: FailureReason, message: str) -> R3mesError | None:
    match reason:
        case FailureReason.HASH_MISMATCH | FailureReason.UPSTREAM_MISMATCH:
            return IntegrityError(message)
        case FailureReason.SOURCE_UNAVAILABLE:
            return SourceUnavailableError(message)
        case FailureReason.DISK_FULL:
            return DiskFullError(message, missing_bytes=0)
        case FailureReason.CANCELLED:
            return NotReadyError(message, next_step="r3mes retry")
        case FailureReason.BYTES_LOST:
            return None  # it begins again by itself


def _between(began: float | None, ended: float | None) -> float | None:
    return None if began is None or ended is None else max(0.0, ended - began)
