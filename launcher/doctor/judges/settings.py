"""Names, values and contradictions of the settings; who may read the files that hold secrets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.doctor.verdict import Verdict, failed, from_error, ok, warning
from shared.errors import ExitCode, R3mesError

_READ_BY_OTHERS = 0o004


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What a service says of the settings: `message` and `next_step` of its refusal, empty when it takes them."""

    service: str
    message: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two settings that cannot both be meant."""

    names: str
    summary: str
    next_step: str
    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file of secrets. `mode` is None where it is not there; `is_in_reach`: every directory above lets others in."""

    name: str
    path: str
    mode: int | None
    is_in_reach: bool = True
    error: str = ""


def judge_names(errors: Sequence[R3mesError], count: int, where: str) -> list[Verdict]:
    """Every R3MES_* name must be known, and every value must fit."""
    if errors:
        return [from_error(error) for error in errors]
    return [ok(f"{count} set in {where}" if count else f"none set in {where}; the defaults do")]


def judge_service(found: ServiceSettings) -> Verdict:
    """A service must take the settings as they are."""
    if found.message:
        return failed(found.message, found.next_step, ExitCode.CONFIGURATION, about=found.service)
    return ok("takes its settings", about=found.service)


def judge_contradictions(found: Sequence[Contradiction]) -> list[Verdict]:
    """What contradicts is named; fatal is what stops a start."""
    if not found:
        return [ok("none found")]
    return [
        failed(each.summary, each.next_step, ExitCode.CONFIGURATION, about=each.names)
        if each.is_fatal
        else warning(each.summary, each.next_step, about=each.names)
        for each in found
    ]


def judge_secret_files(files: Sequence[SecretFile]) -> list[Verdict]:
    """No other user of this host may read a secret."""
    if not files:
        return [ok("no secret is in a file")]
    wrong = [verdict for each in files if (verdict := _judge_file(each)) is not None]
    return wrong or [ok(f"{len(files)} kept from other users")]


def _judge_file(file: SecretFile) -> Verdict | None:
    if file.mode is None:
        reason = file.error or "it is not there"
        return failed(
            f"{file.path} cannot be read: {reason}",
            f"write it, or unset {file.name}",
            ExitCode.CONFIGURATION,
            about=file.name,
        )
    if file.mode & _READ_BY_OTHERS and file.is_in_reach:
        return warning(
            f"every user of this host may read {file.path} ({file.mode:04o})",
            "chmod 0600 it, or the folder around it 0700 where containers read it",
            about=file.name,
        )
    return None
