"""The status as plain lines."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.status import Host, Report
from launcher.status_lines import describe, status_lines
from shared.states import FailureReason, ModelState, ModelStatus, Source
from tests.support.scripted_stack import DIGEST, model, status_document


def status(**changes: Any) -> ModelStatus:  # noqa: ANN401  fields of a status
    fields = {"sha256": DIGEST, "model_name": "Tiny", "file_name": "tiny.gguf", "expected_bytes": 2_000_000}
    return ModelStatus(**{**fields, **changes})


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (status(state=ModelState.ABSENT), "Tiny: absent, 2.0 MB"),
        (
            status(state=ModelState.DOWNLOADING, received_bytes=500_000, source=Source.IPFS),
            "Tiny: downloading, 500.0 kB of 2.0 MB, from ipfs",
        ),
        (
            status(state=ModelState.VERIFIED, received_bytes=2_000_000, verified_at=1_700_000_000.0),
            "Tiny: verified, 2.0 MB, verified 2023-11-14T22:13:20Z",
        ),
        (
            status(state=ModelState.FAILED, reason=FailureReason.DISK_FULL, next_attempt_at=1_700_000_000.0),
            "Tiny: failed (disk_full), 2.0 MB, tried again 2023-11-14T22:13:20Z",
        ),
    ],
)
def test_a_model_is_told_in_one_line_with_its_digest(model: ModelStatus, line: str) -> None:
    assert describe(model) == [f"{line}, sha256 {DIGEST}"]


def test_a_message_is_told_below_it_and_steers_no_terminal() -> None:
    _, message = describe(status(state=ModelState.FAILED, message="no \x1b[2Jroom\nat all"))
    assert message == r"  no \x1b[2Jroom at all"


def test_the_host_is_told_as_far_as_it_is_known() -> None:
    document = status_document(redis_up=False, queue=None)
    found = Report("http://x", (), Host.model_validate(document), document)
    assert list(status_lines(found)) == [
        "redis: is away: verdicts have to wait",
        "disk: 35.1 GB free of 100.0 GB",
    ]
    bare = Report("/store", (), Host(genesis_sha256=DIGEST), model(), is_store=True)
    assert list(status_lines(bare)) == []
