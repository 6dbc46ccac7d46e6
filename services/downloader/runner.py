"""One piece of long work at a time, in a thread of its own, that anyone may interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.transfer.progress import Progress, Snapshot

Work = Callable[[Interrupt], None]
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """What runs: for which digest, and its progress if it is a transfer."""

    digest: str
    interrupt: Interrupt
    progress: Progress | None


class Runner:
    """Runs at most one piece of work.

    `on_idle` is called when a piece has ended, `on_crash` with an error that nobody expected.
    """

    def __init__(self, on_idle: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._thread: threading.Thread | None = None
        self._on_crash = on_crash

    @property
    def is_idle(self) -> bool:
        """Whether work may be started."""
        return self._running is None

    def is_on(self, digest: str) -> bool:
        """Tell whether work for this digest runs."""
        running = self._running
        return running is not None and running.digest == digest

    def snapshot(self, digest: str) -> Snapshot | None:
        """Return the progress of this digest's transfer, None when none runs."""
        running = self._running
        if running is None or running.digest != digest or running.progress is None:
            return None
        return running.progress.snapshot()

    def start(self, digest: str, work: Work, progress: Progress | None) -> bool:
        """Start `work`, unless something runs; return whether it was started."""
        with self._lock:
            if self._running is not None:
                return False
            running = Running(digest, Interrupt(), progress)
            self._running = running
            self._thread = threading.Thread(target=self._run, args=(running, work), name="runner", daemon=True)
            self._thread.start()
            return True

    def interrupt(self, digest: str, reason: Reason) -> None:
        """Stop the work for this digest, if it is what runs."""
        running = self._running
        if running is not None and running.digest == digest:
            running.interrupt.tell(reason)

    def interrupt_unless(self, digests: frozenset[str], reason: Reason) -> None:
        """Stop what runs if its digest is not among `digests`."""
        running = self._running
        if running is not None and running.digest not in digests:
            running.interrupt.tell(reason)

    def stop(self) -> None:
        """Stop what runs and wait until what came is safe."""
        running, thread = self._running, self._thread
        if running is not None:
            running.interrupt.tell(Reason.SHUTDOWN)
        if thread is not None:
            thread.join(_STOP_SECONDS)

    def _run(self, running: Running, work: Work) -> None:
        try:
            work(running.interrupt)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread: the process ends with it
            self._on_crash(error)
        finally:
            with self._lock:
                self._running = None
            self._on_idle()
