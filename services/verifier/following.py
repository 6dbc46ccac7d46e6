"""The threads that follow downloads: one waits for journals, a few take steps in turn.

The waiting one is woken by inotify when a journal is replaced, and looks at everything every LOOK_SECONDS, for file
systems where inotify says nothing (network ones; a container's directory on another kernel). A download that pauses
occupies no thread. Order: `start` ▸ … ▸ `close`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from services.verifier.follower import Follower
from services.verifier.linux import IN_CREATE, IN_MOVED_TO, Inotify
from shared.store.layout import StoreLayout, is_digest

FOLLOWING_THREADS = 3
LOOK_SECONDS = 1.5
# Journals come at most this often, whatever their writer does.
_GATHER_SECONDS = 0.02
_JOURNAL = "journal.json"

log = structlog.get_logger(__name__)


class Following:
    """Follows all downloads of a store in threads of its own, until the end of the process or `close`."""

    def __init__(self, layout: StoreLayout, follower: Follower, stop: threading.Event) -> None:
        self._layout = layout
        self._follower = follower
        self._stop = stop
        self._turns = Turns()
        self._closing = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.has_failed = False
        lives = [self._watch, *[self._take_turns] * FOLLOWING_THREADS]
        self._threads = [
            threading.Thread(target=self._guarded, args=(life,), name=f"follow-{number}", daemon=True)
            for number, life in enumerate(lives)
        ]

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def close(self, within_seconds: float = 1.0) -> None:
        """Stop following; threads that are in a system call are left to the kernel."""
        self._turns.close()
        os.eventfd_write(self._closing, 1)
        deadline = time.monotonic() + within_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._closing)

    def _watch(self) -> None:
        journals = _Journals(self._layout, self._closing)
        try:
            journals.watch(set())  # before the first look, so that no new download falls between
            while not self._is_over():
                candidates = self._follower.candidates()
                journals.watch(candidates)
                self._wake(candidates)
                until = time.monotonic() + LOOK_SECONDS
                while not self._is_over() and (woken := journals.wait(until - time.monotonic())) is not None:
                    self._wake(woken)
        finally:
            journals.close()

    def _take_turns(self) -> None:
        while (digest := self._turns.take()) is not None and not self._stop.is_set():
            self._turns.end(digest, more=self._follower.step(digest))

    def _wake(self, digests: set[str]) -> None:
        for digest in digests:
            self._turns.wake(digest)

    def _is_over(self) -> bool:
        return self._turns.is_closed or self._stop.is_set()

    def _guarded(self, life: Callable[[], None]) -> None:
        try:
            life()
        except Exception:  # the outermost loop of these threads: the process ends with it
            log.exception("a thread that follows downloads failed")
            self.has_failed = True
            self._stop.set()


class Turns:
    """Digests that wait for their turn, each at most once; one whose turn is on waits for its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._running: set[str] = set()
        self._again: set[str] = set()
        self.is_closed = False

    def wake(self, digest: str) -> None:
        """Give a digest a turn, soon."""
        with self._changed:
            if digest in self._running:
                self._again.add(digest)
            elif digest not in self._waiting:
                self._waiting.append(digest)
                self._changed.notify()

    def take(self) -> str | None:
        """Wait for the next turn and return whose it is; None when closed."""
        with self._changed:
            while not self._waiting and not self.is_closed:
                self._changed.wait()
            if self.is_closed:
                return None
            digest = self._waiting.popleft()
            self._running.add(digest)
            return digest

    def end(self, digest: str, *, more: bool) -> None:
        """End a turn; with `more` to do, or woken meanwhile, the digest waits behind the others."""
        with self._changed:
            self._running.discard(digest)
            if more or digest in self._again:
                self._again.discard(digest)
                self._waiting.append(digest)
                self._changed.notify()

    def close(self) -> None:
        """Let everybody who waits go home."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()


class _Journals:
    """What inotify tells of journals; without inotify only time passes."""

    def __init__(self, layout: StoreLayout, closing: int) -> None:
        self._layout = layout
        self._closing = closing
        self._digests: dict[int, str] = {}
        self._poll = select.poll()
        self._poll.register(closing, select.POLLIN)
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify()
            self._poll.register(self._inotify.descriptor, select.POLLIN)
        except OSError as error:
            log.info("no inotify, journals are looked at by the clock", error=str(error))

    def watch(self, digests: set[str]) -> None:
        """Watch the incoming directories of these digests, and for new ones."""
        if self._inotify is None:
            return
        watches = [(self._layout.incoming, IN_CREATE | IN_MOVED_TO, "")]
        watches += [(self._layout.incoming_dir(digest), IN_MOVED_TO, digest) for digest in digests]
        numbers: dict[int, str] = {}
        for directory, events, digest in watches:
            try:
                numbers[self._inotify.watch(str(directory), events)] = digest
            except OSError:
                continue  # not there, or no more watches to be had: the clock is left
        self._digests = numbers

    def wait(self, seconds: float) -> set[str] | None:
        """Return whose journal was replaced; None when it is time to look at everything."""
        ready = self._poll.poll(max(0.0, seconds) * 1000)
        if self._inotify is None or not any(descriptor == self._inotify.descriptor for descriptor, _event in ready):
            return None
        time.sleep(_GATHER_SECONDS)
        digests = set()
        for number, name in self._inotify.read():
            digest = self._digests.get(number)
            if number < 0 or (digest == "" and is_digest(name)):
                return None  # the kernel lost count; or a new download
            if digest and name == _JOURNAL:
                digests.add(digest)
        return digests

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
