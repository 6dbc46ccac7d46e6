"""What statuses say about the stages of the demo."""

import pytest

from launcher.demo.stages import StageClock, failure
from shared.errors import DiskFullError, IntegrityError, NotReadyError, R3mesError, SourceUnavailableError
from shared.states import FailureReason, ModelState, ModelStatus

SIZE = 100


def status(
    state: ModelState, received: int = 0, *, reason: FailureReason | None = None, message: str = ""
) -> ModelStatus:
    return ModelStatus(
        sha256="a" * 64,
        model_name="Tiny",
        file_name="tiny.gguf",
        state=state,
        reason=reason,
        message=message,
        received_bytes=received,
        expected_bytes=SIZE,
    )


def observed(*seen: tuple[float, ModelStatus]) -> StageClock:
    clock = StageClock()
    for now, one in seen:
        clock.observe(one, now)
    return clock


def test_a_whole_way_gives_the_time_of_each_stage() -> None:
    clock = observed(
        (0.0, status(ModelState.ABSENT)),
        (1.0, status(ModelState.DOWNLOADING, 0)),
        (2.0, status(ModelState.DOWNLOADING, 50)),
        (4.0, status(ModelState.DOWNLOADING, SIZE)),
        (4.5, status(ModelState.VERIFYING, SIZE)),
        (5.0, status(ModelState.VERIFIED, SIZE)),
    )
    assert (clock.download_seconds, clock.verify_seconds, clock.was_there) == (3.0, 1.0, False)


def test_a_model_that_was_there_took_nothing() -> None:
    clock = observed((0.0, status(ModelState.ABSENT)), (0.3, status(ModelState.VERIFIED, SIZE)))
    assert (clock.download_seconds, clock.verify_seconds, clock.was_there) == (None, None, True)


def test_a_complete_file_of_an_earlier_run_is_verified_without_a_download() -> None:
    clock = observed((0.0, status(ModelState.VERIFYING, SIZE)), (2.0, status(ModelState.VERIFIED, SIZE)))
    assert (clock.download_seconds, clock.verify_seconds, clock.was_there) == (None, 2.0, False)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (FailureReason.HASH_MISMATCH, IntegrityError),
        (FailureReason.UPSTREAM_MISMATCH, IntegrityError),
        (FailureReason.SOURCE_UNAVAILABLE, SourceUnavailableError),
        (FailureReason.DISK_FULL, DiskFullError),
        (FailureReason.CANCELLED, NotReadyError),
    ],
)
def test_a_failure_is_the_error_with_its_exit_code(reason: FailureReason, error: type[R3mesError]) -> None:
    found = failure(status(ModelState.FAILED, reason=reason, message="what happened"))
    assert type(found) is error
    assert "what happened" in found.diagnostics()


@pytest.mark.parametrize(
    "one",
    [
        status(ModelState.DOWNLOADING, 5),
        status(ModelState.PAUSED, 5),
        status(ModelState.VERIFIED, SIZE),
        status(ModelState.FAILED, reason=FailureReason.BYTES_LOST),
    ],
)
def test_everything_else_may_still_become_verified(one: ModelStatus) -> None:
    assert failure(one) is None


def test_a_veto_is_an_integrity_error() -> None:
    assert isinstance(failure(status(ModelState.VETOED)), IntegrityError)
