"""Tells Redis how far a copy is, from a thread of its own: a Redis that is away or slow never delays a copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.verifier.private_copy import OnBytes
from shared.hints import RedisHints
from shared.states import VerificationProgress

TELL_SECONDS = 0.25  # about four times a second, as a progress bar wants it


class HintsObserver:
    """Publishes progress, the size of the unnamed copy, and verdicts."""

    def __init__(self, hints: RedisHints) -> None:
        self._hints = hints

    @contextmanager
    def watch_copy(self, digest: str, generation: str, size: int) -> Iterator[OnBytes]:
        """Yield what the copy loop calls; publishes while it is in use, and at its end that no copy is left."""
        telling = _Telling(self._hints, digest, generation, size)
        thread = threading.Thread(target=telling.run, name="progress", daemon=True)
        thread.start()
        try:
            yield telling.advance
        finally:
            telling.finished.set()

    def tell_verdict(self, digest: str) -> None:
        """Announce that the store changed for `digest`."""
        self._hints.announce("verdict", digest)


class _Telling:
    def __init__(self, hints: RedisHints, digest: str, generation: str, size: int) -> None:
        self._hints = hints
        self._digest = digest
        self._generation = generation
        self._size = size
        self._done = 0
        self.finished = threading.Event()

    def advance(self, done: int) -> None:
        self._done = done

    def run(self) -> None:
        while True:
            finished = self.finished.wait(TELL_SECONDS)
            self._tell()
            if finished:
                self._hints.publish_copy_size(self._digest, 0)
                return

    def _tell(self) -> None:
        progress = VerificationProgress(
            sha256=self._digest,
            generation=self._generation,
            hashed_bytes=self._done,
            size_bytes=self._size,
            updated_at=time.time(),
        )
        self._hints.publish_copy_size(self._digest, self._size)  # reserved whole, before the first byte
        self._hints.publish_verification(progress)
