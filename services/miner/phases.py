"""What the keeper does, and what `/readyz` says of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What the keeper does."""

    WAITING = "waiting"
    CHECKING = "checking"
    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"
    SWAPPING = "swapping"
    FAILED = "failed"
    DRAINING = "draining"


class Ending(StrEnum):
    """Why a served model is served no longer: `succeeded` by one that is to be loaded, `overtaken` by one that is."""

    CRASHED = "crashed"
    IDLE = "idle"
    CHANGED = "changed"
    SUCCEEDED = "succeeded"
    OVERTAKEN = "overtaken"
    UNPINNED = "unpinned"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` says. `asleep`: unloaded for lack of requests alone, so that the next one has it loaded again."""

    phase: Phase
    reason: str
    asleep: bool = False

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self.phase is Phase.READY or self.asleep
