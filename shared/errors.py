"""The one hierarchy of errors: each error knows its exit code and its next step.

A command or service prints `diagnostics()` and exits with `exit_code`; nothing else of an error is for a person.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every process; 78 is sysexits' EX_CONFIG."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INTEGRITY = 3
    SOURCE_UNAVAILABLE = 4
    DISK_SPACE = 5
    NOT_READY = 6
    CONFIGURATION = 78
    INTERRUPTED = 130


class R3mesError(Exception):
    """Base of every error that a person may see.

    `message` says what is wrong in one line, `next_step` what the person should do now (may be empty).
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def diagnostics(self) -> str:
        """Return the message and, on a line of its own, the next step."""
        if not self.next_step:
            return self.message
        return f"{self.message}\n  next: {self.next_step}"


class UsageError(R3mesError):
    """The command line does not make sense."""

    exit_code = ExitCode.USAGE


class ConfigurationError(R3mesError):
    """A setting, file or version that a person has to change before a start can succeed."""

    exit_code = ExitCode.CONFIGURATION


class StoreError(ConfigurationError):
    """The store is not one that this process may use: other kind, newer format, no agreed genesis."""


class GenesisError(ConfigurationError):
    """A genesis file is missing or wrong; says in which file and field, what was found and what is wanted."""

    def __init__(self, *, file: str, field: str, found: str, wanted: str, next_step: str = "") -> None:
        where = f"{file}: {field}" if field else file
        super().__init__(f"{where}: found {found}, wanted {wanted}", next_step=next_step)
        self.file = file
        self.field = field
        self.found = found
        self.wanted = wanted


class IntegrityError(R3mesError):
    """Bytes do not have the pinned digest."""

    exit_code = ExitCode.INTEGRITY


class SourceUnavailableError(R3mesError):
    """No source gave the bytes."""

    exit_code = ExitCode.SOURCE_UNAVAILABLE


class DiskFullError(R3mesError):
    """There is not enough room; `missing_bytes` says how much more is needed."""

    exit_code = ExitCode.DISK_SPACE

    def __init__(self, message: str, *, missing_bytes: int, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step or "free some space; the next turn notices by itself")
        self.missing_bytes = missing_bytes


class NotReadyError(R3mesError):
    """Something that this needs is not there yet (Redis, a verified model, a running stack)."""

    exit_code = ExitCode.NOT_READY


class EngineError(R3mesError):
    """The inference engine could not load or run the model."""
