"""The states of a model (design §3) and the one document that tells them: API, SSE and Redis carry the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

# Whoever reads a status or a document from elsewhere reckons and prints with what these let through.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[Measure, Field(lt=253_402_300_800)]
"""Since the epoch, before the year 10000."""


class ModelState(StrEnum):
    """Where a pinned model stands."""

    ABSENT = "absent"
    DOWNLOADING = "downloading"
    PAUSED = "paused"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    FAILED = "failed"
    VETOED = "vetoed"


class FailureReason(StrEnum):
    """Why a model is `failed`."""

    SOURCE_UNAVAILABLE = "source_unavailable"
    UPSTREAM_MISMATCH = "upstream_mismatch"
    HASH_MISMATCH = "hash_mismatch"
    BYTES_LOST = "bytes_lost"
    DISK_FULL = "disk_full"
    CANCELLED = "cancelled"


class Source(StrEnum):
    """Where bytes come from, in the order in which sources are tried."""

    IMPORT = "import"
    HUGGINGFACE = "huggingface"
    IPFS = "ipfs"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model as people and scripts see it. Sizes in bytes, times in seconds since the epoch.

    `received_bytes` counts the copy in incoming (the whole size once verified), `hashed_bytes` what the verifier has
    read of it. `message` is one line for a person, `next_attempt_at` is None where only a person can help.
    """

    sha256: str
    model_name: str
    file_name: str
    state: ModelState
    reason: FailureReason | None = None
    message: str = ""
    source: Source | None = None
    received_bytes: Count = 0
    expected_bytes: Count | None = None
    hashed_bytes: Count = 0
    bytes_per_second: Measure | None = None
    eta_seconds: Measure | None = None
    next_attempt_at: Seconds | None = None
    verified_at: Seconds | None = None
    updated_at: Seconds = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with every field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """What the verifier tells of a copy under way: `hashed_bytes` of `size_bytes`, of one generation."""

    sha256: str
    generation: str
    hashed_bytes: Count
    size_bytes: Count
    updated_at: Seconds
