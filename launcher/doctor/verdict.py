"""What a check found: a status, one line that says it, and the next step. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.errors import ExitCode, R3mesError

# A host with several failures exits with the first of these: what keeps all else from being seen comes first.
SERIOUSNESS = (
    ExitCode.CONFIGURATION,
    ExitCode.DISK_SPACE,
    ExitCode.SOURCE_UNAVAILABLE,
    ExitCode.INTEGRITY,
    ExitCode.NOT_READY,
    ExitCode.FAILURE,
)


class Status(StrEnum):
    """`SKIPPED`: not looked at, and the summary says why. Only `FAILED` changes the exit code."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`about` tells apart what one check looks at (a port, a gateway); `details` are for a script."""

    status: Status
    summary: str
    next_step: str = ""
    exit_code: ExitCode = ExitCode.OK
    about: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and the check and group that it belongs to."""

    group: str
    check: str
    verdict: Verdict


def ok(summary: str, *, about: str = "", **details: object) -> Verdict:
    """Nothing to do."""
    return Verdict(Status.OK, summary, about=about, details=details)


def warning(summary: str, next_step: str, *, about: str = "", **details: object) -> Verdict:
    """It works, or nobody needs it now; a person should know."""
    return Verdict(Status.WARNING, summary, next_step, about=about, details=details)


def failed(summary: str, next_step: str, code: ExitCode, *, about: str = "", **details: object) -> Verdict:
    """Something cannot work like this."""
    return Verdict(Status.FAILED, summary, next_step, code, about, details)


def skipped(why: str, *, about: str = "", **details: object) -> Verdict:
    """It was not looked at."""
    return Verdict(Status.SKIPPED, why, about=about, details=details)


def from_error(error: R3mesError, *, about: str = "", **details: object) -> Verdict:
    """A known error is a failure with its own code and next step."""
    return failed(error.message, error.next_step, error.exit_code, about=about, **details)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """Return the code of the most serious failure, 0 where there is none."""
    codes = {each.verdict.exit_code for each in findings if each.verdict.status is Status.FAILED}
    return next((code for code in SERIOUSNESS if code in codes), ExitCode.FAILURE if codes else ExitCode.OK)
