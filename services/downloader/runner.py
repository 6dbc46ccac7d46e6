"""Long work in threads of its own, one piece a model, that anyone may interrupt.

As a rule one piece runs at a time, so that the first model is here first. Only while all that run are slow may another
begin: a source that trickles holds up nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.transfer.progress import Progress, Snapshot

Work = Callable[[Interrupt], None]
_STOP_SECONDS = 5.0
# At most so many pieces at once, however slow they are.
MOST = 4
# A piece is slow when it has run for so many seconds and moves fewer bytes a second than this.
SLOW_SECONDS = 10.0
SLOW_BYTES_PER_SECOND = 256 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """What runs: its progress if it is a transfer, and its thread."""

    interrupt: Interrupt
    progress: Progress | None
    thread: threading.Thread


def may_begin(running: Iterable[Snapshot | None]) -> bool:
    """Tell whether another piece may begin beside these (None: a piece without progress). Pure."""
    pieces = tuple(running)
    return len(pieces) < MOST and all(piece is not None and _is_slow(piece) for piece in pieces)


def _is_slow(piece: Snapshot) -> bool:
    return piece.seconds >= SLOW_SECONDS and (piece.bytes_per_second or 0.0) < SLOW_BYTES_PER_SECOND


class Runner:
    """Runs pieces of work. `on_idle` is called when one has ended, `on_crash` with an error that nobody expected."""

    def __init__(self, on_idle: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        self._on_idle = on_idle
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}

    @property
    def is_free(self) -> bool:
        """Whether another piece of work may begin now."""
        return may_begin(piece.progress.snapshot() if piece.progress else None for piece in self._pieces())

    @property
    def digests(self) -> frozenset[str]:
        """The digests for which work runs."""
        with self._lock:
            return frozenset(self._running)

    def is_on(self, digest: str) -> bool:
        """Tell whether work for this digest runs."""
        return digest in self._running

    def snapshot(self, digest: str) -> Snapshot | None:
        """Return the progress of this digest's transfer, None when none runs."""
        running = self._running.get(digest)
        return running.progress.snapshot() if running is not None and running.progress is not None else None

    def start(self, digest: str, work: Work, progress: Progress | None) -> bool:
        """Start `work`, unless the digest's own or too much else runs; return whether it was started."""
        if not self.is_free:
            return False
        with self._lock:
            if digest in self._running:
                return False
            interrupt = Interrupt()
            thread = threading.Thread(target=self._run, args=(digest, interrupt, work), name="runner", daemon=True)
            self._running[digest] = Running(interrupt, progress, thread)
        thread.start()
        return True

    def interrupt(self, digest: str, reason: Reason) -> None:
        """Stop the work for this digest, if any runs."""
        running = self._running.get(digest)
        if running is not None:
            running.interrupt.tell(reason)

    def interrupt_unless(self, digests: frozenset[str], reason: Reason) -> None:
        """Stop what runs for digests that are not among `digests`."""
        with self._lock:
            others = [running for digest, running in self._running.items() if digest not in digests]
        for running in others:
            running.interrupt.tell(reason)

    def stop(self) -> None:
        """Stop what runs and wait until what came is safe."""
        pieces = self._pieces()
        for running in pieces:
            running.interrupt.tell(Reason.SHUTDOWN)
        for running in pieces:
            running.thread.join(_STOP_SECONDS)

    def _pieces(self) -> tuple[Running, ...]:
        with self._lock:
            return tuple(self._running.values())

    def _run(self, digest: str, interrupt: Interrupt, work: Work) -> None:
        try:
            work(interrupt)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread: the process ends with it
            self._on_crash(error)
        finally:
            with self._lock:
                self._running.pop(digest, None)
            self._on_idle()
