"""How a transfer ends: values that the controller turns into the next entry of `control.json`."""

from __future__ import annotations

from dataclasses import dataclass

from services.downloader.interrupt import Reason
from shared.states import FailureReason


@dataclass(frozen=True, slots=True)
class Completed:
    """All bytes are durable; a verdict may be asked for."""

    size: int


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """The source has failed for this turn."""

    message: str
    reason: FailureReason | None = None


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The disk is full; `size` is the file's size as far as it is known."""

    message: str
    size: int | None


@dataclass(frozen=True, slots=True)
class LocalTrouble:
    """The store could not be written or read: no source is to blame."""

    message: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Told to stop; what is durable stays."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """Another writer may be alive."""


Outcome = Completed | SourceFailed | NoRoom | LocalTrouble | Interrupted | LeaseTaken
