"""A verifier for one download in the same process, without Redis: follows the bytes while they come, then judges.

Order: enter → the download → `verify`, as often as it takes → leave. Nothing of a copy outlives it but what the service
would leave: a promoted file, or a low-space partial.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from services.verifier.follower import Follower
from services.verifier.following import Following
from services.verifier.metrics import VerifierMetrics
from services.verifier.private_copy import OnBytes
from services.verifier.verification import Outcome, Verifier
from shared.store.layout import StoreLayout
from shared.store.trust import TrustWatch


class Companion:
    """Follows one digest between `__enter__` and `__exit__`. Raises StoreError when no genesis is accepted there."""

    def __init__(self, layout: StoreLayout, digest: str) -> None:
        self._digest = digest
        self._stop = threading.Event()
        self._told = _Told()
        metrics = VerifierMetrics(CollectorRegistry())
        self._verifier = Verifier(layout, TrustWatch(layout), metrics, self._stop, self._told)
        self._following = Following(layout, _OfOne(self._verifier, digest), self._stop)

    @property
    def hashed_bytes(self) -> int:
        """How many bytes of the copy under way, or of the last one, are hashed."""
        return self._told.done

    @property
    def copy_bytes(self) -> int:
        """What a copy without a name occupies now."""
        return self._told.unnamed

    def verify(self) -> Outcome:
        """Judge what lies complete in incoming, in this thread."""
        return self._verifier.verify(self._digest)

    def stop(self) -> None:
        """End what is under way soon; nothing is verified after that."""
        self._stop.set()

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._following.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop following, and give up what is copied."""
        self._stop.set()
        self._following.close()
        with self._verifier.lock_of(self._digest):
            self._verifier.copies.drop(self._digest)
            self._verifier.copies.partials.release()


class _OfOne(Follower):
    """Follows one download, whatever else lies in incoming."""

    def __init__(self, verifier: Verifier, digest: str) -> None:
        super().__init__(verifier)
        self._digest = digest

    def candidates(self) -> set[str]:
        """Return the one digest, if it is worth a step."""
        return super().candidates() & {self._digest}


class _Told:
    """What the verifier tells of its copy. Bytes."""

    def __init__(self) -> None:
        self.done = 0
        self.unnamed = 0

    @contextmanager
    def watch_copy(
        self,
        digest: str,  # noqa: ARG002 - there is one
        generation: str,  # noqa: ARG002
        size: int,  # noqa: ARG002
        *,
        unnamed_bytes: int,
    ) -> Iterator[OnBytes]:
        """Yield what is called with the bytes done."""
        self.done, self.unnamed = 0, unnamed_bytes

        def advance(done: int) -> None:
            self.done = done

        try:
            yield advance
        finally:
            self.unnamed = 0

    def tell_verdict(self, digest: str) -> None:
        """Nobody listens: the store says it."""
