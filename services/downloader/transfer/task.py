"""What a connection is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from services.downloader.sources.base import PermanentSourceError, TransientSourceError, UpstreamMismatchError
from services.downloader.transfer.planner import Claim

Failure = TransientSourceError | PermanentSourceError | UpstreamMismatchError


@dataclass(frozen=True, slots=True)
class Task:
    """Fetch `claim` from `place`. `size` is the file's (None: not known yet), `limit` the most that it may have.

    When the task was given, `began_at` was the source's time, `at` the claim's first byte, and `received` bytes of the
    file were there.
    """

    claim: Claim
    place: int
    size: int | None
    limit: int
    began_at: float
    at: int
    received: int
