"""One source's turn at one model: lease, preflight, room, connections, durability, and the rules when to stop.

Invariant: nothing is written without the lease, nothing is announced before it is durable, and no byte is asked for
before the size and the digest that upstream tells of were compared with the pin.
Order: `Transfer(...).run()` → lease → for each place, or all places together: preflight → room → `Crew` → complete. It
returns an outcome and raises nothing that a source or a disk can cause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import structlog

from services.downloader.interrupt import Interrupt, InterruptedTransferError, Reason
from services.downloader.limits import LEASE_RENEW_SECONDS, Limits
from services.downloader.metrics import DownloaderMetrics
from services.downloader.sources.base import (
    Connection,
    PermanentSourceError,
    Supply,
    TransientSourceError,
    UpstreamMismatchError,
)
from services.downloader.sources.preflight import refuse_mismatch
from services.downloader.transfer.crew import Crew, GivenUpError, Job, RangesIgnoredError
from services.downloader.transfer.file_keeper import FileKeeper
from services.downloader.transfer.incoming import Origin, prepare_directory, read_journal
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
from services.downloader.transfer.patience import Patience
from services.downloader.transfer.places import Places
from services.downloader.transfer.progress import Progress
from services.downloader.transfer.ranges import covered
from services.downloader.transfer.source_clock import SourceClock
from services.downloader.transfer.space import Mode, Room
from services.downloader.transfer.stop_rules import GiveUp
from services.downloader.transfer.task import Failure
from shared.errors import DiskFullError, StoreError
from shared.genesis import ModelPin
from shared.states import FailureReason, Source
from shared.store.atomic import sweep_temporaries
from shared.store.layout import StoreLayout
from shared.store.records import Lease, PartialNote

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every transfer of this process shares. `room(digest)` measures the file system now.

    `beginning` is held while room is measured and taken, so that two transfers do not count on the same bytes.
    """

    layout: StoreLayout
    keeper: LeaseKeeper
    limits: Limits
    metrics: DownloaderMetrics
    room: Callable[[str], Room]
    beginning: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Errand:
    """What one turn is about: take `pin` from `supply`, the places of `source`.

    `attempts` are the failures that a former turn left behind; `on_failures` is told how many tries in a row have
    brought nothing, and keeps it on disk.
    """

    pin: ModelPin
    source: Source
    supply: Supply
    interrupt: Interrupt
    progress: Progress
    attempts: int
    on_failures: Callable[[int], None]


class Transfer:
    """One turn; `run` it once."""

    def __init__(self, shop: Workshop, errand: Errand) -> None:
        self._shop = shop
        self._errand = errand
        self._lease_path = shop.layout.lease(errand.pin.sha256)
        self._lease: Lease | None = None
        self._size = errand.pin.size_bytes
        self._clock = SourceClock()
        self._patience = Patience(
            shop.limits, self._clock, errand.attempts, self._durable_at_start(), errand.on_failures
        )
        self._keeper = FileKeeper(
            shop.layout,
            errand.pin,
            shop.keeper.identity.instance,
            shop.limits,
            self._clock,
            errand.interrupt,
            room=lambda: shop.room(errand.pin.sha256),
            holds_lease=self._holds_lease,
            beginning=shop.beginning,
        )

    def run(self) -> Outcome:
        """Take the lease and the bytes; give back the lease in any case."""
        try:
            prepare_directory(self._shop.layout, self._errand.pin.sha256)
            lease = self._lease = self._shop.keeper.acquire(self._lease_path)
        except OSError as error:
            return LocalTrouble(f"cannot take the lease: {error}")
        if lease is None:
            return LeaseTaken()
        sweep_temporaries(self._lease_path.parent)
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(lease, done), name="transfer-watch", daemon=True)
        watch.start()
        try:
            return self._outcome()
        finally:
            self._keeper.stop()
            done.set()
            watch.join()
            self._shop.keeper.release(self._lease_path, lease)

    def _outcome(self) -> Outcome:
        limits = self._shop.limits
        try:
            return self._take_turns()
        except InterruptedTransferError as stopped:
            match stopped.reason:
                case Reason.QUIET:
                    return SourceFailed(f"no new byte for {limits.quiet_seconds:g} s")
                case Reason.SLOW:
                    least = limits.least_bytes_per_second
                    return SourceFailed(f"less than {least} bytes/s for {limits.quiet_seconds:g} s")
                case reason:
                    return Interrupted(reason)
        except DiskFullError as full:
            return NoRoom(full.message, self._size)
        except (StoreError, OSError) as error:
            return LocalTrouble(str(error))

    def _take_turns(self) -> Outcome:
        """Ask the places, together or one after the other, until all bytes are there or none is left to ask."""
        durable = self._keeper.finish_what_is_durable()
        if durable is not None:
            return Completed(durable)
        self._keeper.start()
        left = list(range(self._errand.supply.places))
        outcome = SourceFailed("nothing there any more")
        while left:
            group = left if self._errand.supply.together else left[:1]
            places = Places(list(group), self._errand.supply.spread)
            try:
                self._take(places)
            except GivenUpError as error:
                model = self._errand.pin.model_name
                log.warning("source failed", model=model, source=self._errand.source, error=error.message)
                return SourceFailed(error.message)
            except (PermanentSourceError, UpstreamMismatchError) as error:
                outcome = _failure(error)
                left = [place for place in left if place not in group]
            else:
                self._shop.metrics.attempt(self._errand.source, "complete")
                return Completed(self._size or 0)
        return outcome

    def _take(self, places: Places) -> None:
        """Preflight, room, then every missing range; returns when the data is complete."""
        interrupt = self._errand.interrupt.child()
        connection = self._errand.supply.connect(interrupt)
        try:
            origin = self._preflight(connection, places)
            if self._size is not None:
                self._resume(self._size, origin)
        except BaseException:
            connection.close()
            raise
        try:
            Crew(self._job(places, origin), connection, interrupt).run()
        except RangesIgnoredError:
            self._begin(self._size or 0, origin)
            interrupt = self._errand.interrupt.child()
            connection = self._errand.supply.connect(interrupt)
            Crew(self._job(places, origin), connection, interrupt, as_stream=True).run()
        self._keeper.complete()

    def _preflight(self, connection: Connection, places: Places) -> Origin:
        """Ask the first place what it has, as often as patience lasts, and compare that with the pin."""
        place = connection.places[places.alive[0]]
        while True:
            began_at = self._clock.now()
            try:
                with self._waiting_for_nobody():
                    facts = place.preflight()
                refuse_mismatch(self._errand.pin, facts)
            except TransientSourceError as error:
                self._count(error)
                verdict = self._patience.failed(began_at, error.retry_after)
                if isinstance(verdict, GiveUp):
                    raise GivenUpError(f"{error.message} ({verdict.why})") from error
                if verdict is not None:
                    self._errand.interrupt.wait(verdict.seconds)
            except (PermanentSourceError, UpstreamMismatchError) as error:
                self._count(error)
                raise
            else:
                self._size = self._size or facts.size
                return Origin(self._errand.source, place.url, facts.revision)

    def _resume(self, size: int, origin: Origin) -> None:
        self._keeper.resume(size, origin)
        received = self._keeper.received
        self._errand.progress.set(received, size)
        if received:
            model = self._errand.pin.model_name
            log.info("resuming", model=model, source=self._errand.source, received_bytes=received)

    def _begin(self, size: int, origin: Origin) -> None:
        self._size = size
        self._keeper.begin(size, origin)
        self._patience.begin_generation()
        self._errand.progress.set(0, size)

    def _job(self, places: Places, origin: Origin) -> Job:
        return Job(
            supply=self._errand.supply,
            places=places,
            size=self._size,
            limit=self._errand.pin.required_bytes,
            limits=self._shop.limits,
            interrupt=self._errand.interrupt,
            keeper=self._keeper,
            patience=self._patience,
            begin=lambda size: self._begin(size, origin),
            until=self._until,
            on_bytes=self._tell_bytes,
            on_failure=self._count,
        )

    def _until(self) -> int:
        """The byte that may not be reached yet: in low-space mode the verifier has to follow."""
        size = self._size or self._errand.pin.required_bytes
        if self._keeper.mode is Mode.NORMAL:
            return size
        note = PartialNote.read(self._shop.layout.partial_note(self._errand.pin.sha256))
        durable = note.durable if note is not None and note.generation == self._keeper.generation else 0
        return min(size, durable + self._shop.limits.ahead_bytes)

    def _tell_bytes(self, count: int, received: int) -> None:
        self._errand.progress.add(count, received)
        self._shop.metrics.received(self._errand.source, count)

    def _count(self, error: Failure) -> None:
        outcome = "permanent"
        if isinstance(error, TransientSourceError):
            outcome = "transient"
        elif isinstance(error, UpstreamMismatchError):
            outcome = "upstream_mismatch"
        self._shop.metrics.attempt(self._errand.source, outcome)
        if outcome != "transient":
            model = self._errand.pin.model_name
            log.warning("source failed", model=model, source=self._errand.source, error=error.diagnostics())

    def _durable_at_start(self) -> int:
        """What this source has brought already; another source's bytes are no measure for it."""
        journal = read_journal(self._shop.layout, self._errand.pin.sha256)
        return covered(journal.ranges) if journal and journal.source is self._errand.source else 0

    def _holds_lease(self) -> bool:
        return self._lease is not None and self._shop.keeper.still_holds(self._lease_path, self._lease)

    def _waiting_for_nobody(self) -> AbstractContextManager[None]:
        """Hashing a local file is our own time."""
        return self._clock.ours() if self._errand.source is Source.IMPORT else nullcontext()

    def _watch(self, lease: Lease, done: threading.Event) -> None:
        """Renew the lease and watch the clock while the transfer's own threads may be waiting."""
        renewed_at = time.monotonic()
        while not done.wait(_WATCH_SECONDS):
            now = time.monotonic()
            if now - renewed_at >= LEASE_RENEW_SECONDS:
                renewed_at = now
                try:
                    held = self._shop.keeper.renew(self._lease_path, lease)
                except OSError:
                    continue  # a full disk: the lease lives on until it expires
                if held is None:
                    self._errand.interrupt.tell(Reason.LEASE_LOST)
                    return
            reason = self._patience.reason_to_stop()
            if reason is not None:
                self._errand.interrupt.tell(reason)


def _failure(error: PermanentSourceError | UpstreamMismatchError) -> SourceFailed:
    message = f"{error.message} ({error.next_step})" if error.next_step else error.message
    mismatch = isinstance(error, UpstreamMismatchError)
    return SourceFailed(message, FailureReason.UPSTREAM_MISMATCH if mismatch else None)
