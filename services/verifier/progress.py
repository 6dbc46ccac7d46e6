"""Tells Redis how far copies are, from a thread of its own: a Redis that is away or slow never delays a copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from services.verifier.private_copy import OnBytes
from shared.hints import HINT_SECONDS, RedisHints
from shared.states import VerificationProgress

TELL_SECONDS = 0.25  # about four times a second, as a progress bar wants it
# A copy that does not grow (its download is paused) is told of again before the hint expires.
REPEAT_SECONDS = HINT_SECONDS / 3


class Observer(Protocol):
    """Who is told of copies under way and of verdicts."""

    def watch_copy(
        self, digest: str, generation: str, size: int, *, unnamed_bytes: int
    ) -> AbstractContextManager[OnBytes]:
        """Return what is called with the bytes done while the copy of `size` bytes is made.

        `unnamed_bytes`: what it occupies without a name by which others could find it.
        """

    def tell_verdict(self, digest: str) -> None:
        """Say that the store changed for `digest`."""


class SilentObserver:
    """Tells nobody."""

    def __init__(self, on_bytes: Callable[[int, int], None] | None = None) -> None:
        self._on_bytes = on_bytes

    def watch_copy(
        self,
        digest: str,  # noqa: ARG002
        generation: str,  # noqa: ARG002
        size: int,
        *,
        unnamed_bytes: int,  # noqa: ARG002
    ) -> AbstractContextManager[OnBytes]:
        """Pass the bytes done and the size on, if somebody asked for them."""
        on_bytes = self._on_bytes
        return nullcontext(lambda done: on_bytes(done, size) if on_bytes else None)

    def tell_verdict(self, digest: str) -> None:
        """Nobody listens."""


class HintsObserver:
    """Publishes progress, the size of unnamed copies, and verdicts."""

    def __init__(self, hints: RedisHints) -> None:
        self._hints = hints
        self._changed = threading.Condition()
        self._watched: list[_Watched] = []
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch_copy(self, digest: str, generation: str, size: int, *, unnamed_bytes: int) -> Iterator[OnBytes]:
        """Yield what the copy loop calls; publishes while it is in use, and at its end that no copy is left."""
        watched = _Watched(digest, generation, size, unnamed_bytes)
        with self._changed:
            self._watched.append(watched)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
        try:
            yield watched.advance
        finally:
            watched.is_over = True

    def tell_verdict(self, digest: str) -> None:
        """Announce that the store changed for `digest`."""
        self._hints.announce("verdict", digest)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                while not self._watched:
                    self._changed.wait()
                watched = list(self._watched)
            pause.wait(TELL_SECONDS)
            newest = {copy.digest: copy for copy in watched}
            for copy in watched:
                if newest[copy.digest] is copy:
                    copy.tell(self._hints)
                else:
                    copy.is_told = True  # its successor's figures stand already
            with self._changed:
                self._watched = [copy for copy in self._watched if not copy.is_told]


class _Watched:
    """One copy under way; `is_told` once its end is."""

    def __init__(self, digest: str, generation: str, size: int, unnamed_bytes: int) -> None:
        self.digest = digest
        self._generation = generation
        self._size = size
        self._unnamed_bytes = unnamed_bytes
        self._done = 0
        self._told = (-1, 0.0)  # the bytes done that were told last, and when
        self.is_over = False
        self.is_told = False

    def advance(self, done: int) -> None:
        self._done = done

    def tell(self, hints: RedisHints) -> None:
        is_over, done, now = self.is_over, self._done, time.monotonic()
        if done != self._told[0] or now - self._told[1] > REPEAT_SECONDS or is_over:
            self._told = done, now
            # Reserved whole, before the first byte.
            hints.publish_copy_size(self.digest, 0 if is_over else self._unnamed_bytes)
            hints.publish_verification(
                VerificationProgress(
                    sha256=self.digest,
                    generation=self._generation,
                    hashed_bytes=done,
                    size_bytes=self._size,
                    updated_at=time.time(),
                )
            )
        self.is_told = is_over
