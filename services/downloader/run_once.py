"""One download, one adoption of a local file, or one removal, without a service, for the `r3mes` command.

A download, and an operator's word, are the service's own controller for one model (`standalone`).

An adoption is the downloader's own `Transfer`, and with it the one writer's lease, the rules about room, the journal
and what is durable. Added is what a process without a reconciler needs: it waits until a lease that nobody renews has
expired, does not read a file twice that its caller has hashed, and gives up where only a verifier at work could make
room.
Order of calls: `download_once` alone, which has the bytes judged; or `adopt_once`, then the verdict, then `link_once`.
`discard_once` and `sweep_links` are for `r3mes gc`, `tell_once` writes an operator's word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from services.downloader.control_rules import Verb
from services.downloader.desired import desired_pins
from services.downloader.host_link import Place, link_path, look_at, make_link, sweep_links
from services.downloader.interrupt import Interrupt, InterruptedTransferError, Reason
from services.downloader.limits import DEFAULT_LIMITS, Limits
from services.downloader.look_once import Look, Sample, Scout
from services.downloader.metrics import DownloaderMetrics
from services.downloader.observe import measure_room
from services.downloader.settings import PUBLIC_IPFS_GATEWAYS
from services.downloader.sources.base import Connection, Facts
from services.downloader.sources.imported import FileHash, ImportedSource, ImportedSupply, identity_of
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.outcomes import (
    Completed,
    Interrupted,
    LeaseTaken,
    LocalTrouble,
    NoRoom,
    Outcome,
    SourceFailed,
)
from services.downloader.transfer.progress import Progress
from services.downloader.transfer.space import Mode, missing_bytes, needed_bytes
from services.downloader.transfer.transfer import Errand, Transfer, Workshop
from services.downloader.unpinned import remove_unpinned
from shared.genesis import ModelPin
from shared.states import FailureReason, ModelStatus, Source
from shared.store.layout import StoreLayout
from shared.store.records import Lease, StatIdentity
from shared.store.trust import read_trust

if TYPE_CHECKING:
    from services.downloader.standalone import Judge

__all__ = [
    "PUBLIC_IPFS_GATEWAYS",
    "Completed",
    "Interrupted",
    "LeaseTaken",
    "LocalTrouble",
    "Look",
    "Mode",
    "NoRoom",
    "Outcome",
    "Sample",
    "Scout",
    "SourceFailed",
    "Verb",
    "adopt_once",
    "discard_once",
    "download_once",
    "link_once",
    "missing_room",
    "needed_bytes",
    "sweep_links",
    "tell_once",
]

_TICK_SECONDS = 0.1
_LEASE_LOOK_SECONDS = 0.5
# In low-space mode: for how long the verifier may make no room before it counts as not there.
_VERIFIER_SECONDS = 30.0


def download_once(layout: StoreLayout, pin: ModelPin, judge: Judge, stop: threading.Event) -> Iterator[ModelStatus]:
    """Fetch `pin` as the service does, by its settings in the environment, and have `judge` judge the bytes.

    Yields the model's status several times a second until it is verified, or `stop` is set; what came stays. Raises
    NotReadyError when another process fetches it, what `judge` raises, ConfigurationError, OSError of the store.
    """
    from services.downloader.standalone import download  # noqa: PLC0415 - the whole service: other commands need none

    return download(layout, pin, judge, stop)


def tell_once(layout: StoreLayout, pin: ModelPin, verb: Verb, stop: threading.Event) -> ModelStatus:
    """Write an operator's word into the store, for whoever fetches the model next; return the model's status.

    Raises NotReadyError when another process fetches it now, ConfigurationError, OSError of the store.
    """
    from services.downloader.standalone import tell  # noqa: PLC0415

    return tell(layout, pin, verb, stop)


def adopt_once(
    layout: StoreLayout,
    pin: ModelPin,
    path: Path,
    *,
    hashed: StatIdentity | None = None,
    stop: threading.Event | None = None,
    on_bytes: Callable[[int, int], None] = lambda _done, _size: None,
    limits: Limits = DEFAULT_LIMITS,
) -> Outcome:
    """Bring the file at `path` into incoming as `pin`, in this thread; what came stays, whatever the outcome.

    Nothing is to be done where incoming is complete already.

    `hashed` is the state in which the caller found it to have the pinned digest; in any other it is hashed first.
    `on_bytes(done, size)` is called now and then, from another thread. Wrong bytes are SourceFailed with the reason
    `hash_mismatch`. Raises StoreError when no genesis is accepted in the store.
    """
    pins = desired_pins(read_trust(layout))
    journal = read_journal(layout, pin.sha256)
    if journal is not None and journal.complete:
        return Completed(journal.size)  # its verdict comes first, whoever brought it; that needs neither lease nor room
    wrong: list[FileHash] = []
    interrupt = Interrupt()
    errand = Errand(
        pin=pin,
        source=Source.IMPORT,
        supply=_Hashed(path, pin.sha256, hashed, wrong.append),
        interrupt=interrupt,
        progress=Progress(Source.IMPORT),
        attempts=0,
        on_failures=lambda _count: None,  # one turn: nobody will ask how often
    )
    shop = Workshop(
        layout=layout,
        keeper=LeaseKeeper(Identity.of_this_process()),
        limits=limits,
        metrics=DownloaderMetrics(CollectorRegistry(), layout.incoming),
        room=lambda digest: measure_room(layout, digest, pins, {}),
    )
    watch = _Watch(layout, errand, stop or threading.Event(), on_bytes)
    watch.start()
    try:
        outcome = _take_turn(shop, errand)
    finally:
        watch.end()
    match outcome:
        case Interrupted() if watch.lacks_verifier:
            return NoRoom("there is room for one copy only, and no verifier is at work that could follow", None)
        case SourceFailed(message) if wrong:
            return SourceFailed(message, FailureReason.HASH_MISMATCH)
        case _:
            return outcome


def missing_room(layout: StoreLayout, pin: ModelPin, size: int) -> int:
    """Return how many bytes have to be freed before a generation of `size` can begin; raises OSError, StoreError."""
    room = measure_room(layout, pin.sha256, desired_pins(read_trust(layout)), {})
    return missing_bytes(room, size, pin.required_bytes)


def discard_once(layout: StoreLayout, digest: str) -> bool:
    """Remove what lies in incoming for a digest that is not pinned; False where a writer may live. Raises OSError."""
    return remove_unpinned(layout, LeaseKeeper(Identity.of_this_process()), digest)


def link_once(layout: StoreLayout, pin: ModelPin, adopted: StatIdentity) -> str:
    """Lead `<models>/<file_name>` to the verified file; return why there is no link, empty if there is one.

    The file that was just adopted gives way to it; any other is left to the downloader, which reads it first.
    """
    path = link_path(layout, pin)
    try:
        match look_at(layout, pin):
            case Place.LINKED:
                return ""
            case Place.FILE if identity_of(path, follow=False) != adopted:
                return f"{path} is in the place of the link and is left alone; a running downloader looks into it"
            case Place.FOREIGN:
                return f"{path} is in the way of the link and is left alone"
            case _:
                make_link(layout, pin)
                return ""
    except OSError as error:
        return f"cannot link {path}: {error.strerror}"


def _take_turn(shop: Workshop, errand: Errand) -> Outcome:
    """Run the transfer, again as long as another's lease may still turn out to be dead."""
    path = shop.layout.lease(errand.pin.sha256)
    seen: Lease | None = None
    while isinstance(outcome := Transfer(shop, errand).run(), LeaseTaken):
        lease = Lease.read(path)
        if seen is not None and lease is not None and lease != seen:
            return outcome  # somebody renews it
        seen = lease or seen
        try:
            errand.interrupt.wait(_LEASE_LOOK_SECONDS)
        except InterruptedTransferError as told:
            return Interrupted(told.reason)
    return outcome


class _Hashed(ImportedSupply):
    """One file, whose digest is known as long as it is in the state in which it was hashed."""

    def __init__(
        self, path: Path, expected: str, hashed: StatIdentity | None, on_wrong: Callable[[FileHash], None]
    ) -> None:
        super().__init__([path], expected, lambda _path, found: on_wrong(found))
        self._hashed = hashed

    def connect(self, interrupt: Interrupt) -> Connection:
        """Return the file; there is nothing to close."""
        places = (_HashedSource(path, self._expected, interrupt, self._on_wrong, self._hashed) for path in self._paths)
        return Connection(tuple(places), close=lambda: None)


class _HashedSource(ImportedSource):
    def __init__(
        self,
        path: Path,
        expected: str,
        interrupt: Interrupt,
        on_wrong: Callable[[Path, FileHash], None],
        hashed: StatIdentity | None,
    ) -> None:
        super().__init__(path, expected, interrupt, on_wrong)
        self._hashed = hashed

    def preflight(self) -> Facts:
        """Say what the caller has found, or hash the file if it is in another state now."""
        if self._hashed is not None and identity_of(self.path) == self._hashed:
            return Facts(size=self._hashed.size, sha256=self._expected)
        return super().preflight()


class _Watch(threading.Thread):
    """Beside the transfer: tells of its progress, passes a stop on, and sees when it waits for nobody."""

    def __init__(
        self, layout: StoreLayout, errand: Errand, stop: threading.Event, on_bytes: Callable[[int, int], None]
    ) -> None:
        super().__init__(name="adoption-watch", daemon=True)
        self._layout = layout
        self._errand = errand
        self._asked = stop
        self._on_bytes = on_bytes
        self._over = threading.Event()
        self._received = 0
        self._moved_at = time.monotonic()
        self.lacks_verifier = False

    def run(self) -> None:
        """Look until `end`."""
        while not self._over.wait(_TICK_SECONDS):
            self._look()

    def end(self) -> None:
        """Look a last time and be done."""
        self._over.set()
        self.join()
        self._look()

    def _look(self) -> None:
        now = self._errand.progress.snapshot()
        if now.received != self._received and now.expected:
            self._received, self._moved_at = now.received, time.monotonic()
            self._on_bytes(now.received, now.expected)
        elif 0 < now.received < (now.expected or 0) and self._waits_for_a_verifier():
            self.lacks_verifier = True
            self._errand.interrupt.tell(Reason.OPERATOR)
        if self._asked.is_set():
            self._errand.interrupt.tell(Reason.OPERATOR)

    def _waits_for_a_verifier(self) -> bool:
        if time.monotonic() - self._moved_at < _VERIFIER_SECONDS:
            return False
        journal = read_journal(self._layout, self._errand.pin.sha256)
        return journal is not None and Mode(journal.mode) is Mode.LOW_SPACE
