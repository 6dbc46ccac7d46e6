"""One source's turn at one model: lease, preflight, room, ranges, durability, and the rules when to stop.

Invariant: nothing is written without the lease, nothing is announced before it is durable, and no byte is asked for
before the size and the digest that upstream tells of were compared with the pin.
Order: `Transfer(...).run()` → lease → for each try: preflight → room → ranges in order → complete. It returns an
outcome and raises nothing that a source or a disk can cause.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from services.downloader.interrupt import Interrupt, InterruptedTransferError, Reason
from services.downloader.limits import LEASE_RENEW_SECONDS, Limits
from services.downloader.metrics import DownloaderMetrics
from services.downloader.sources.base import (
    Body,
    ByteSource,
    PermanentSourceError,
    TransientSourceError,
    UpstreamMismatchError,
)
from services.downloader.transfer.incoming import IncomingFile, Origin, prepare_directory, read_journal
from services.downloader.transfer.lease import LeaseKeeper
from services.downloader.transfer.outcomes import (
    Completed,
    Interrupted,
    LeaseTaken,
    LocalTrouble,
    NoRoom,
    Outcome,
    SourceFailed,
)
from services.downloader.transfer.preflight import refuse_mismatch
from services.downloader.transfer.progress import Progress
from services.downloader.transfer.ranges import covered, next_range
from services.downloader.transfer.space import Room, missing_bytes
from services.downloader.transfer.stop_rules import GiveUp, Trial, failed, is_quiet, new_generation, progressed
from shared.errors import DiskFullError, StoreError
from shared.genesis import ModelPin
from shared.states import FailureReason, Source
from shared.store.layout import StoreLayout
from shared.store.records import Lease

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every transfer of this process shares. `room(digest)` measures the file system now."""

    layout: StoreLayout
    keeper: LeaseKeeper
    limits: Limits
    metrics: DownloaderMetrics
    room: Callable[[str], Room]


@dataclass(slots=True)
class Transfer:
    """Takes `pin` from `places` of one `source`; `attempts` are the failures that a former turn left behind.

    `on_failures` is told how many tries in a row have brought nothing, and keeps it on disk.
    """

    shop: Workshop
    pin: ModelPin
    source: Source
    places: list[ByteSource]
    interrupt: Interrupt
    progress: Progress
    attempts: int
    on_failures: Callable[[int], None]
    _lease: Lease | None = None
    _file: IncomingFile | None = None
    _size: int | None = None
    _synced_at: float = 0.0
    _on_disk: bool = False
    _trial: Trial = field(default=Trial(0, 0, 0, 0.0))

    def run(self) -> Outcome:
        """Take the lease and the bytes; give back the lease in any case."""
        path = self.shop.layout.lease(self.pin.sha256)
        self._size = self.pin.size_bytes
        try:
            prepare_directory(self.shop.layout, self.pin.sha256)
            lease = self._lease = self.shop.keeper.acquire(path)
        except OSError as error:
            return LocalTrouble(f"cannot take the lease: {error}")
        if lease is None:
            return LeaseTaken()
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(lease, done), name="transfer-watch", daemon=True)
        durable = self._durable_at_start()
        self._trial = Trial(self.attempts, durable, durable, time.monotonic())
        watch.start()
        try:
            return self._outcome()
        finally:
            self._save_quietly()
            done.set()
            watch.join()
            self.shop.keeper.release(path, lease)

    def _outcome(self) -> Outcome:
        try:
            return self._take_turns()
        except InterruptedTransferError as stopped:
            if stopped.reason is Reason.QUIET:
                return SourceFailed(f"no new byte for {self.shop.limits.quiet_seconds:g} s")
            return Interrupted(stopped.reason)
        except DiskFullError as full:
            return NoRoom(full.message, self._size)
        except (StoreError, OSError) as error:
            return LocalTrouble(str(error))

    def _take_turns(self) -> Outcome:
        """Try the places in turn until one has given everything or all have failed."""
        if self._finish_what_is_durable():
            return Completed(self._size or 0)
        while True:
            place = self.places[0]
            try:
                self._take(place)
                self._count("complete")
                return Completed(self._size or 0)
            except (PermanentSourceError, UpstreamMismatchError) as error:
                mismatch = isinstance(error, UpstreamMismatchError)
                self._count("upstream_mismatch" if mismatch else "permanent")
                log.warning("source failed", model=self.pin.model_name, source=self.source, error=error.diagnostics())
                self.places.pop(0)
                if not self.places:
                    message = f"{error.message} ({error.next_step})" if error.next_step else error.message
                    return SourceFailed(message, FailureReason.UPSTREAM_MISMATCH if mismatch else None)
            except TransientSourceError as error:
                self._count("transient")
                given_up = self._after_transient(error)
                if given_up is not None:
                    return given_up

    def _after_transient(self, error: TransientSourceError) -> SourceFailed | None:
        """Keep what came, wait as the rules say, or give the source up for this turn."""
        self._sync()
        self._trial, verdict = failed(
            self._trial,
            time.monotonic(),
            self.shop.limits,
            retry_after=error.retry_after,
            jitter=random.random(),  # noqa: S311 - spreads load, protects nothing
        )
        self.on_failures(self._trial.failures)
        if isinstance(verdict, GiveUp):
            log.warning("source failed", model=self.pin.model_name, source=self.source, error=error.message)
            return SourceFailed(f"{error.message} ({verdict.why})")
        log.info("trying again", model=self.pin.model_name, error=error.message, seconds=round(verdict.seconds, 1))
        self.places.append(self.places.pop(0))
        self.interrupt.wait(verdict.seconds)
        return None

    def _take(self, place: ByteSource) -> None:
        """Preflight, room, then every missing range; returns when the data is complete."""
        with self._local() if self.source is Source.IMPORT else _nothing():
            facts = place.preflight()
        refuse_mismatch(self.pin, facts)
        self._size = self._size or facts.size
        origin = Origin(self.source, place.url, facts.revision)
        if self._size is not None:
            self._resume(self._size, origin)
        while True:
            held = self._file.written if self._file else ()
            size = self._size or self.pin.required_bytes
            wanted = next_range(held, size, self.shop.limits.range_bytes)
            if wanted is None:
                break
            with place.fetch(*wanted, self._size, self.pin.required_bytes) as body:
                self._receive(body, origin)
        if self._file is not None:
            with self._local():
                self._file.complete()

    def _receive(self, body: Body, origin: Origin) -> None:
        """Write one body at its place; a source that sends the whole file instead begins a new generation."""
        self._size = body.size
        file = self._file
        if file is None or body.restarted:
            file = self._begin(body.size, origin)
        offset = body.start
        for chunk in body.chunks:
            file.write_at(offset, chunk)
            offset += len(chunk)
            self.progress.add(len(chunk), file.received)
            self.shop.metrics.received(self.source, len(chunk))
            pending = file.received - file.durable
            due = time.monotonic() - self._synced_at >= self.shop.limits.journal_seconds
            if due or pending >= self.shop.limits.journal_bytes:
                self._sync()

    def _resume(self, size: int, origin: Origin) -> None:
        """Open what is there if it is of the same identity; what is not stays until the first byte of the next."""
        if self._file is not None:
            if self._file.is_of(size, origin):
                return
            self._file.close()
        digest = self.pin.sha256
        self._file = IncomingFile.resume(self.shop.layout, digest, size, origin, self.shop.keeper.identity.instance)
        self._synced_at = time.monotonic()
        self._check_room(size, floor=0 if self._file else self.pin.required_bytes)
        received = self._file.received if self._file else 0
        self.progress.set(received, size)
        if received:
            log.info("resuming", model=self.pin.model_name, source=self.source, received_bytes=received)

    def _begin(self, size: int, origin: Origin) -> IncomingFile:
        if self._file is not None:
            self._file.close()
            self._file = None
            log.info("starting again from 0", model=self.pin.model_name, source=self.source)
        self._check_room(size, floor=self.pin.required_bytes)
        with self._local():
            instance = self.shop.keeper.identity.instance
            file = self._file = IncomingFile.start(self.shop.layout, self.pin.sha256, size, origin, instance)
        self._synced_at = time.monotonic()
        self._trial = new_generation(self._trial)
        self.progress.set(0, size)
        return file

    def _check_room(self, size: int, floor: int) -> None:
        missing = missing_bytes(self.shop.room(self.pin.sha256), size, floor)
        if missing:
            raise DiskFullError(f"{missing} bytes more are needed", missing_bytes=missing)

    def _sync(self) -> None:
        """Make what came durable and tell the trial of it."""
        if self._file is None:
            return
        lease = self._lease
        if lease is None or not self.shop.keeper.still_holds(self.shop.layout.lease(self.pin.sha256), lease):
            self.interrupt.tell(Reason.LEASE_LOST)
            self.interrupt.check()
        with self._local():
            self._file.sync()
        self._synced_at = time.monotonic()
        before = self._trial.failures
        self._trial = progressed(self._trial, self._file.durable, self._synced_at)
        if before and not self._trial.failures:
            self.on_failures(0)

    def _save_quietly(self) -> None:
        """Keep what came when a transfer ends early; what cannot be kept is fetched again."""
        if self._file is None:
            return
        try:
            if self.interrupt.reason is not Reason.LEASE_LOST:
                self._file.sync()
        except (DiskFullError, StoreError) as error:
            log.warning("could not keep the last bytes", model=self.pin.model_name, error=error.message)
        finally:
            self._file.close()

    def _finish_what_is_durable(self) -> bool:
        """A former process may have died between the last byte and its announcement: no source is needed then."""
        journal = read_journal(self.shop.layout, self.pin.sha256)
        if journal is None or journal.ranges != ((0, journal.size),):
            return False
        origin = Origin(journal.source, journal.url, journal.revision)
        instance = self.shop.keeper.identity.instance
        found = IncomingFile.resume(self.shop.layout, self.pin.sha256, journal.size, origin, instance)
        if found is None:
            return False
        self._file, self._size = found, journal.size
        self._file.complete()
        return True

    def _durable_at_start(self) -> int:
        """What this source has brought already; another source's bytes are no measure for it."""
        journal = read_journal(self.shop.layout, self.pin.sha256)
        return covered(journal.ranges) if journal and journal.source is self.source else 0

    def _count(self, outcome: str) -> None:
        self.shop.metrics.attempt(self.source, outcome)

    def _watch(self, lease: Lease, done: threading.Event) -> None:
        """Renew the lease and watch the clock while the transfer's own thread may be waiting."""
        path = self.shop.layout.lease(self.pin.sha256)
        renewed_at = time.monotonic()
        while not done.wait(_WATCH_SECONDS):
            now = time.monotonic()
            if now - renewed_at >= LEASE_RENEW_SECONDS:
                renewed_at = now
                try:
                    held = self.shop.keeper.renew(path, lease)
                except OSError:
                    continue  # a full disk: the lease lives on until it expires
                if held is None:
                    self.interrupt.tell(Reason.LEASE_LOST)
                    return
            if not self._on_disk and is_quiet(self._trial, now, self.shop.limits):
                self.interrupt.tell(Reason.QUIET)

    @contextmanager
    def _local(self) -> Iterator[None]:
        """Time spent on our own disk is not the source's silence."""
        self._on_disk, begun = True, time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - begun
            self._trial = replace(self._trial, progress_at=self._trial.progress_at + spent)
            self._on_disk = False


@contextmanager
def _nothing() -> Iterator[None]:
    yield
