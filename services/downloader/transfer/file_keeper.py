"""The incoming file of one turn: written by every connection, made durable by a thread of its own.

Invariant: nothing is announced without the lease, or under a name that leads elsewhere, and no more than
`unsynced_bytes` are ever taken that a SIGKILL would cost.
Order: `resume` or `begin` → `start` → `write` (any thread) → `complete` → `stop`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.limits import Limits
from services.downloader.transfer.incoming import IncomingFile, Origin, fitting_journal
from services.downloader.transfer.ranges import Ranges
from services.downloader.transfer.source_clock import SourceClock
from services.downloader.transfer.space import Mode, Room, missing_bytes, mode_for
from shared.errors import DiskFullError, StoreError
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout

log = structlog.get_logger(__name__)

_LEAST_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class FileKeeper:
    """`room()` measures the file system now, `holds_lease()` looks at the lease on disk.

    `beginning` is held while room is measured and taken.
    """

    layout: StoreLayout
    pin: ModelPin
    instance: str
    limits: Limits
    clock: SourceClock
    interrupt: Interrupt
    room: Callable[[], Room]
    holds_lease: Callable[[], bool]
    beginning: threading.Lock
    _file: IncomingFile | None = None
    _syncing: threading.Lock = field(default_factory=threading.Lock)  # while the file is synced, completed, replaced
    _synced: threading.Condition = field(default_factory=threading.Condition)
    _is_due: threading.Event = field(default_factory=threading.Event)
    _is_over: bool = False
    _error: DiskFullError | StoreError | OSError | None = None
    _thread: threading.Thread | None = None

    @property
    def held(self) -> Ranges:
        """The ranges that are written; nothing while there is no file."""
        return self._file.written if self._file else ()

    @property
    def received(self) -> int:
        """Bytes that are written."""
        return self._file.received if self._file else 0

    @property
    def is_open(self) -> bool:
        """Whether there is a file to write to."""
        return self._file is not None

    @property
    def mode(self) -> Mode:
        """How much room there was when the generation began."""
        return self._file.mode if self._file else Mode.NORMAL

    @property
    def generation(self) -> str:
        """The generation's name, empty while there is no file."""
        return self._file.generation if self._file else ""

    def start(self) -> None:
        """Begin to make durable what is written."""
        self._thread = threading.Thread(target=self._keep_syncing, name="transfer-sync", daemon=True)
        self._thread.start()

    def finish_what_is_durable(self) -> int | None:
        """Complete what a former process made durable and did not announce; return its size, None if it is not so."""
        journal = fitting_journal(self.layout, self.pin)
        if journal is None or journal.ranges != ((0, journal.size),):
            return None
        origin = Origin(journal.source, journal.url, journal.revision)
        self._file = IncomingFile.resume(self.layout, self.pin.sha256, journal.size, origin, self.instance)
        if self._file is None:
            return None
        self.complete()  # nothing is left to write, so no room is needed
        return journal.size

    def resume(self, size: int, origin: Origin) -> None:
        """Open what is there if it is of this identity; else what is there stays until the first byte of the next.

        Raises DiskFullError when there is no room to go on, or to begin.
        """
        with self._syncing:
            if self._file is not None and self._file.is_of(size, origin):
                return
            if self._file is not None:
                self._file.close()
            with self.clock.ours():
                self._file = IncomingFile.resume(self.layout, self.pin.sha256, size, origin, self.instance)
        _check_room(self.room(), size, floor=0 if self._file else self.pin.required_bytes)

    def begin(self, size: int, origin: Origin) -> None:
        """Begin a generation of `size`; raises DiskFullError and StoreError."""
        with self._syncing, self.clock.ours(), self.beginning:
            if self._file is not None:
                self._file.close()
                self._file = None
                log.info("starting again from 0", model=self.pin.model_name, source=origin.source)
            room = self.room()
            _check_room(room, size, floor=self.pin.required_bytes)
            mode = mode_for(room, size)
            if mode is Mode.LOW_SPACE:
                log.info("room for one copy only", model=self.pin.model_name, size_bytes=size)
            self._file = IncomingFile.start(self.layout, self.pin.sha256, size, origin, self.instance, mode)

    def write(self, offset: int, chunk: bytes | memoryview) -> None:
        """Write at `offset`, after waiting for the disk to catch up; raises what the disk raised, or the interrupt."""
        file = self._file
        if file is None:
            raise StoreError("the incoming file is closed")
        with self.clock.ours():
            while file.unsynced >= self.limits.unsynced_bytes:
                self._is_due.set()
                with self._synced:
                    self._synced.wait(_LEAST_PAUSE_SECONDS)
                self.interrupt.check()
                self.raise_error()
            file.write_at(offset, chunk)
        if file.unsynced >= self.limits.journal_bytes:
            self._is_due.set()

    def raise_error(self) -> None:
        """Raise what went wrong while data was made durable."""
        if self._error is not None:
            raise self._error

    def complete(self) -> None:
        """All bytes are written: make them durable and announce it; raises StoreError, or the interrupt."""
        with self._syncing, self.clock.ours():
            self._check_ours()
            self.interrupt.check()
            if self._file is not None:
                self._file.complete()

    def stop(self) -> None:
        """Keep what came, as far as the disk and the lease allow; what is not kept is fetched again."""
        self._is_over = True
        self._is_due.set()
        if self._thread is not None:
            self._thread.join()
        with self._syncing:
            if self._file is None:
                return
            try:
                if self._error is None and self._check_ours():
                    self._file.sync()
            except (DiskFullError, StoreError) as error:
                log.warning("could not keep the last bytes", model=self.pin.model_name, error=error.message)
            finally:
                self._file.close()

    def _keep_syncing(self) -> None:
        while not self._is_over:
            self._is_due.wait(max(self.limits.journal_seconds, _LEAST_PAUSE_SECONDS))
            self._is_due.clear()
            try:
                self._sync()
            except (DiskFullError, StoreError, OSError) as error:
                self._error = error
                return
            finally:
                with self._synced:
                    self._synced.notify_all()

    def _sync(self) -> None:
        with self._syncing:
            if self._file is None or self._is_over or not self._file.unsynced:
                return
            if self._check_ours():
                self._file.sync()

    def _check_ours(self) -> bool:
        """Tell whether lease and data are still ours; stop the transfer if not."""
        if not self.holds_lease():
            self.interrupt.tell(Reason.LEASE_LOST)
        elif self._file is not None and not self._file.is_named():
            self.interrupt.tell(Reason.VOID)
        else:
            return True
        return False


def _check_room(room: Room, size: int, floor: int) -> None:
    missing = missing_bytes(room, size, floor)
    if missing:
        raise DiskFullError(f"{missing} bytes more are needed", missing_bytes=missing)
