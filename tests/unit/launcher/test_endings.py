"""Which status ends the waiting for a model, with which exit code, and what waits on."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from launcher.endings import SETTLE_SECONDS, Endings, error_of
from shared.errors import ExitCode
from shared.states import FailureReason, ModelState, ModelStatus

STATUS = ModelStatus("a" * 64, "Tiny model", "tiny.gguf", ModelState.DOWNLOADING)


def failed(reason: FailureReason, next_attempt_at: float | None = None, message: str = "words") -> ModelStatus:
    return replace(STATUS, state=ModelState.FAILED, reason=reason, message=message, next_attempt_at=next_attempt_at)


@pytest.mark.parametrize(
    "state", [ModelState.ABSENT, ModelState.DOWNLOADING, ModelState.VERIFYING, ModelState.VERIFIED]
)
def test_a_model_on_its_way_or_there_is_no_error(state: ModelState) -> None:
    status = replace(STATUS, state=state)
    assert error_of(status) is None
    assert Endings(waits=False).of(status, 0.0) is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (failed(FailureReason.HASH_MISMATCH), ExitCode.INTEGRITY),
        (failed(FailureReason.UPSTREAM_MISMATCH), ExitCode.INTEGRITY),
        (failed(FailureReason.BYTES_LOST), ExitCode.INTEGRITY),
        (failed(FailureReason.SOURCE_UNAVAILABLE), ExitCode.SOURCE_UNAVAILABLE),
        (failed(FailureReason.DISK_FULL), ExitCode.DISK_SPACE),
        (failed(FailureReason.CANCELLED), ExitCode.NOT_READY),
        (replace(STATUS, state=ModelState.PAUSED), ExitCode.NOT_READY),
        (replace(STATUS, state=ModelState.VETOED), ExitCode.NOT_READY),
    ],
)
def test_every_failure_has_its_exit_code_the_models_name_and_a_next_step(status: ModelStatus, code: ExitCode) -> None:
    error = error_of(status)
    assert error is not None
    assert error.exit_code is code
    assert "Tiny model" in error.message
    assert error.next_step
    assert "retry Tiny model" not in error.next_step  # a name with a blank is quoted, so that it can be pasted


def test_the_next_attempt_is_told_with_who_makes_it_and_waited_for_on_request() -> None:
    status = failed(FailureReason.DISK_FULL, time.time() + 90)
    told = Endings(waits=False, somebody="the stack").of(status, 0.0)
    assert told is not None
    assert "the stack tries again at " in told.next_step
    assert "(in 1 min 30 s)" in told.next_step
    alone = Endings(waits=False).of(status, 0.0)
    assert alone is not None
    assert "again at" not in alone.next_step
    assert Endings(waits=True).of(status, 0.0) is None


@pytest.mark.parametrize("waits", [False, True])
def test_a_failure_without_a_next_attempt_ends_the_waiting_also_of_who_waits(waits: bool) -> None:
    assert Endings(waits).of(failed(FailureReason.HASH_MISMATCH), 0.0) is not None


@pytest.mark.parametrize("waits", [False, True])
def test_between_two_rounds_the_time_of_the_next_attempt_is_given_a_moment(waits: bool) -> None:
    endings = Endings(waits)
    between = failed(FailureReason.SOURCE_UNAVAILABLE)
    assert endings.of(between, 100.0) is None
    assert endings.of(between, 100.0 + SETTLE_SECONDS / 2) is None
    assert endings.of(STATUS, 100.0 + SETTLE_SECONDS) is None  # it goes on
    assert endings.of(between, 100.0 + SETTLE_SECONDS) is None
    assert endings.of(between, 100.0 + 2 * SETTLE_SECONDS) is not None
