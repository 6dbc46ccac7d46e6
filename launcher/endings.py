"""What a model's status means for a command that waits for it: go on, or end with which error. Pure."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from launcher.pace import describe_span
from shared.errors import DiskFullError, IntegrityError, NotReadyError, R3mesError, SourceUnavailableError
from shared.states import FailureReason, ModelState, ModelStatus

# Between two rounds a model has failed, and the time of the next attempt is not written down yet.
SETTLE_SECONDS = 3.0
_WRITTEN_SOON = frozenset({FailureReason.SOURCE_UNAVAILABLE, FailureReason.UPSTREAM_MISMATCH})


@dataclass(slots=True)
class Endings:
    """Says when a status is an end. `waits`: a later attempt is waited for; `somebody`: who will make it, if anyone."""

    waits: bool
    somebody: str = ""
    _since: float | None = None

    def of(self, status: ModelStatus, now: float) -> R3mesError | None:
        """Return the error that ends the waiting, None while the model may still come; `now` is monotonic (seconds)."""
        error = error_of(status)
        if error is None:
            self._since = None
            return None
        if status.next_attempt_at is not None:
            return None if self.waits else self._with_attempt(error, status.next_attempt_at)
        if status.reason in _WRITTEN_SOON:
            self._since = now if self._since is None else self._since
            return error if now - self._since >= SETTLE_SECONDS else None
        return error

    def _with_attempt(self, error: R3mesError, at: float) -> R3mesError:
        if self.somebody:
            error.next_step += f"; {self.somebody} tries again {describe_moment(at)}, `--wait` waits for it"
        return error


def error_of(status: ModelStatus) -> R3mesError | None:
    """Return the error that a status is, with what to do about it; None where the model is on its way, or verified."""
    name, quoted = status.model_name, shlex.quote(status.model_name)
    match status.state:
        case ModelState.VETOED:
            return NotReadyError(
                f"{name} is vetoed: {status.message or 'the chain does not hold it'}",
                next_step="compare `r3mes genesis show` with the chain, and look at R3MES_CHAIN_RPC",
            )
        case ModelState.PAUSED:
            return NotReadyError(f"{name} is paused; what came is kept", next_step=f"r3mes resume {quoted}")
        case ModelState.FAILED:
            return _failure(status.reason, f"{name}: {_words(status)}", quoted)
        case _:
            return None


def _failure(reason: FailureReason | None, message: str, quoted: str) -> R3mesError:
    match reason:
        case FailureReason.HASH_MISMATCH:
            return IntegrityError(
                message,
                next_step="compare the pin (`r3mes genesis show`) with its publisher's; "
                f"`r3mes retry {quoted}` forgets what came and tries again",
            )
        case FailureReason.UPSTREAM_MISMATCH:
            return IntegrityError(
                message, next_step="upstream has another file than the genesis pins: compare `r3mes genesis show`"
            )
        case FailureReason.BYTES_LOST:
            return IntegrityError(message, next_step="check the disk; the model is fetched anew by the next attempt")
        case FailureReason.DISK_FULL:
            return DiskFullError(message, missing_bytes=0, next_step="free some space; what came is kept")
        case FailureReason.CANCELLED:
            return NotReadyError(message, next_step=f"r3mes retry {quoted}")
        case _:
            return SourceUnavailableError(
                message,
                next_step="check the network, HF_TOKEN for a gated model, HF_ENDPOINT for a mirror; "
                "or take a file that you have: r3mes import FILE",
            )


def _words(status: ModelStatus) -> str:
    reason = status.reason.value.replace("_", " ") if status.reason else "failed"
    return f"{reason}: {status.message}" if status.message else reason


def describe_moment(at: float) -> str:
    """Say when a moment (seconds since the epoch) is, by the clock and from now."""
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    return f"at {clock} (in {describe_span(max(0.0, at - time.time()))})"
