"""The JSON documents that lie beside the bytes: journal, lease, control, notes, rejected, receipt, store, accepted.

Every document but a process's own is hostile: exact keys and types, bounded numbers, digests of 64 hex digits; whatever
does not fit reads as absent (`None`). Writing is atomic and durable (`atomic.replace_bytes`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.states import Count, FailureReason, Seconds, Source
from shared.store.atomic import read_bytes, read_hostile_bytes, replace_bytes
from shared.store.layout import (
    DIGEST,
    INCOMING_FILE_MODE,
    PARTIAL_NOTE_MODE,
    REJECTED_FILE_MODE,
    STORE_FORMAT,
    TRUST_FILE_MODE,
    VERIFIED_FILE_MODE,
)

MAX_RANGES = 1024
_INT64 = 2**63 - 1

Digest = Annotated[str, Field(pattern=f"^{DIGEST.pattern}$")]
Inode = Annotated[int, Field(ge=0, lt=2**64)]  # overlays and network file systems use all 64 bits
Nanoseconds = Annotated[int, Field(ge=-_INT64, le=_INT64)]  # of a clock that may stand before 1970
Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(max_length=255)]


class Record(BaseModel):
    """A document with exact keys and types, written whole and read strictly."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    file_mode: ClassVar[int] = INCOMING_FILE_MODE

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Return the document in `content`, or None when it is not exactly one of this kind."""
        try:
            return cls.model_validate_json(content)
        except (ValidationError, RecursionError):
            return None

    @classmethod
    def read(cls, path: Path | str, *, dir_fd: int | None = None) -> Self | None:
        """Return the document at `path`, or None when it is absent or not one; never raises for its content."""
        content = read_hostile_bytes(path, dir_fd=dir_fd)
        return None if content is None else cls.parse(content)

    @classmethod
    def read_now(cls, path: Path | str, *, dir_fd: int | None = None) -> Self | None:
        """Return what `read` does, where it matters whether the document is absent.

        Raises OSError when it is there and cannot be read now.
        """
        content = read_bytes(path, dir_fd=dir_fd)
        return None if content is None else cls.parse(content)

    def write(self, path: Path) -> None:
        """Replace `path` by this document, atomically and durably; raises OSError."""
        replace_bytes(path, self.model_dump_json(indent=1).encode() + b"\n", mode=self.file_mode)


class Journal(Record):
    """What of one generation of incoming data may be read and what is durable.

    `ranges` are half-open `[start, end)` byte ranges that are durable, sorted and apart; `prefix` counts the contiguous
    bytes from 0 that a reader may take now. A new start of the data is a new inode and a new `generation`.
    """

    version: Literal[1] = 1
    sha256: Digest
    size: Annotated[int, Field(gt=0, le=_INT64)]
    generation: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    ino: Inode
    instance: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    source: Source
    url: Text
    revision: Name
    mode: Literal["normal", "low-space"] = "normal"
    prefix: Count
    ranges: Annotated[tuple[tuple[Count, Count], ...], Field(max_length=MAX_RANGES)]
    complete: bool
    updated_at: Seconds

    @model_validator(mode="after")
    def _within_size(self) -> Self:
        end = -1
        for start, stop in self.ranges:
            if not end < start < stop <= self.size:
                raise ValueError("ranges must be sorted, apart and within the size")
            end = stop
        if self.prefix > self.size:
            raise ValueError("prefix must be within the size")
        if self.complete and self.ranges != ((0, self.size),):
            raise ValueError("a complete file is one durable range")
        return self

    @property
    def durable_prefix(self) -> int:
        """Contiguous durable bytes from 0."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 0 else 0


class PartialNote(Record):
    """The verifier's note beside a low-space partial: its first `durable` bytes are synced and belong to `generation`.

    Incoming data is punched up to `durable` only after this note is durable; the downloader stays a bounded number of
    bytes ahead of it.
    """

    file_mode: ClassVar[int] = PARTIAL_NOTE_MODE
    version: Literal[1] = 1
    generation: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    durable: Count


class Lease(Record):
    """The one writer of an incoming directory.

    `instance` is random at process start, `token` grows with every take-over, `renewed_at` is for people: expiry is
    judged by whether the document changes.
    """

    version: Literal[1] = 1
    host: Name
    boot_id: Name
    pid_namespace: Name
    pid: Count
    instance: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    token: Count
    renewed_at: Seconds


class Control(Record):
    """The operator's wish and the downloader's memory, so that a restart starts no bill again.

    `attempts` counts tries without a new durable byte per source in this round, `rounds` the rounds in which every
    source failed (they double the wait), `forgiven_before` is the time before which rejected records do not count.
    """

    version: Literal[1] = 1
    wish: Literal["run", "paused", "cancelled"] = "run"
    attempts: dict[Source, Count] = Field(default_factory=dict)
    rounds: Count = 0
    reason: FailureReason | None = None
    message: Text = ""
    next_attempt_at: Seconds | None = None
    forgiven_before: Seconds = 0.0


class RejectedRecord(Record):
    """Why bytes of a pinned model were deleted; the bytes are gone."""

    file_mode: ClassVar[int] = REJECTED_FILE_MODE
    version: Literal[1] = 1
    sha256: Digest
    found: Digest | None
    size: Count
    reason: Literal["mismatch", "tampered", "bytes_lost"]
    generation: Name
    source: Source | None
    revision: Name
    genesis_sha256: Digest
    rejected_at: Seconds


class StatIdentity(Record):
    """What tells one state of a file from another: any write or change of metadata changes it."""

    dev: Inode
    ino: Inode
    size: Count
    mtime_ns: Nanoseconds
    ctime_ns: Nanoseconds

    @classmethod
    def of(cls, status: os.stat_result) -> StatIdentity:
        """Take the identity from `os.fstat` or `os.stat`."""
        return cls(
            dev=status.st_dev,
            ino=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )


class Receipt(Record):
    """The verifier's note of a promotion: a hint that saves hashing again, never the proof."""

    file_mode: ClassVar[int] = VERIFIED_FILE_MODE
    version: Literal[1] = 1
    sha256: Digest
    size: Count
    file_name: Name
    source: Source | None
    revision: Name
    verified_at: Seconds
    verifier: Name
    genesis_sha256: Digest
    st: StatIdentity

    def is_right(self, digest: str, status: os.stat_result) -> bool:
        """Tell whether this receipt speaks of `digest` and of exactly the file whose `fstat` is `status`."""
        return self.sha256 == digest and self.size == status.st_size and self.st == StatIdentity.of(status)


class UnpinnedNote(Record):
    """The verifier's note beside a verified file that no genesis pins any more: for how long that has been so.

    `absent_seconds` were counted up to `counted_at`, under the acceptance of `accepted_at` (of `accepted.json`).
    """

    file_mode: ClassVar[int] = VERIFIED_FILE_MODE
    version: Literal[1] = 1
    sha256: Digest
    absent_seconds: Seconds
    counted_at: Seconds
    accepted_at: Seconds


class StoreDocument(Record):
    """`store.json`: which kind of store this is, and in which format."""

    file_mode: ClassVar[int] = TRUST_FILE_MODE
    format: Annotated[int, Field(ge=1)] = STORE_FORMAT
    kind: Literal["host", "container"]


class AcceptedDocument(Record):
    """`trust/accepted.json`: which bytes `trust/genesis.json` must have, written after them."""

    file_mode: ClassVar[int] = TRUST_FILE_MODE
    sha256: Digest
    accepted_at: Seconds
    signature: Text | None = None
