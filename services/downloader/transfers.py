"""Starting transfers, and turning their outcomes into the next entry of `control.json`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.downloader import control_rules as rules
from services.downloader.controls import Controls
from services.downloader.interrupt import Interrupt, Reason
from services.downloader.limits import LEASE_EXPIRY_SECONDS
from services.downloader.runner import Runner
from services.downloader.sources.offers import Offers
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
from services.downloader.transfer.transfer import Errand, Transfer, Workshop
from shared.genesis import ModelPin
from shared.states import FailureReason, Source
from shared.store.trust import Trust

log = structlog.get_logger(__name__)

_LOCAL_TROUBLE_SECONDS = 60.0
_LEASE_WAIT_SECONDS = 2.0
# What counts as the same shortage: the log says it again only when it differs by more.
_SAME_SHORTAGE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Transfers:
    """Pieces of the runner's work. `wake` is called when one has ended and its outcome stands in `control.json`."""

    shop: Workshop
    offers: Offers
    controls: Controls
    runner: Runner
    retry_seconds: float
    wake: Callable[[], None]
    _sizes: dict[str, int] = field(default_factory=dict)
    _held_until: dict[str, float] = field(default_factory=dict)
    _shortages: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known_size(self, pin: ModelPin) -> int | None:
        """Return the file's size, pinned or learnt from upstream; None while unknown."""
        return pin.size_bytes or self._sizes.get(pin.sha256)

    def start(self, pin: ModelPin, source: Source, trust: Trust, mismatches: int) -> None:
        """Begin a transfer, unless one runs or another writer holds the lease.

        `mismatches` is how often this source has delivered wrong bytes that count.
        """
        if not self.runner.is_free or time.monotonic() < self._held_until.get(pin.sha256, 0.0):
            return
        control = self.controls.update(pin.sha256, rules.at_begin)
        if source is Source.IPFS and control.attempts.get(source, 0) == 0:
            self.shop.metrics.fallback()
        progress = Progress(source)
        progress.set(0, self.known_size(pin))
        attempts = control.attempts.get(source, 0)

        def work(interrupt: Interrupt) -> None:
            begun = time.monotonic()
            errand = Errand(
                pin=pin,
                source=source,
                supply=self.offers.make(pin, source, trust, mismatches),
                interrupt=interrupt,
                progress=progress,
                attempts=attempts,
                on_failures=lambda count: self._remember_failures(pin, source, count),
            )
            self._apply(pin, source, Transfer(self.shop, errand).run(), time.monotonic() - begun)

        log.info("transfer begins", model=pin.model_name, source=source)
        self.runner.start(pin.sha256, work, progress)

    def say_disk_full(self, pin: ModelPin, missing: int) -> None:
        """Tell the log of a shortage, once."""
        if missing and abs(self._shortages.get(pin.sha256, 0) - missing) > _SAME_SHORTAGE_BYTES:
            self._shortages[pin.sha256] = missing
            log.warning("disk full: waiting for room", model=pin.model_name, missing_bytes=missing)

    def _remember_failures(self, pin: ModelPin, source: Source, count: int) -> None:
        self.controls.update(pin.sha256, lambda control: rules.after_failures(control, source, count))

    def _apply(self, pin: ModelPin, source: Source, outcome: Outcome, seconds: float) -> None:
        """Write down what the outcome means, then let the next turn go on from there."""
        digest = pin.sha256
        match outcome:
            case Completed(size):
                self._sizes[digest] = size
                self._shortages.pop(digest, None)
                self.controls.update(digest, rules.after_complete)
                self.shop.metrics.finished(source, seconds)
                log.info("all bytes are here", model=pin.model_name, source=source, seconds=round(seconds, 1))
            case SourceFailed(message, reason):
                self.controls.update(digest, lambda c: rules.after_give_up(c, source, message, reason))
            case NoRoom(message, size):
                if size is not None:
                    self._sizes[digest] = size
                self._hold(digest, source, FailureReason.DISK_FULL, message, self.retry_seconds)
            case LocalTrouble(message):
                log.error("the store gives trouble", model=pin.model_name, error=message)
                self._hold(digest, source, FailureReason.SOURCE_UNAVAILABLE, message, _LOCAL_TROUBLE_SECONDS)
            case Interrupted(why):
                log.info("transfer stopped", model=pin.model_name, reason=why)
                if why is Reason.LEASE_LOST:
                    self._held_until[digest] = time.monotonic() + LEASE_EXPIRY_SECONDS
                elif why is Reason.VOID:
                    self._hold(digest, source, FailureReason.BYTES_LOST, why, _LOCAL_TROUBLE_SECONDS)
            case LeaseTaken():
                log.info("another downloader holds the lease", model=pin.model_name)
                self._held_until[digest] = time.monotonic() + _LEASE_WAIT_SECONDS
                timer = threading.Timer(_LEASE_WAIT_SECONDS, self.wake)
                timer.daemon = True
                timer.start()

    def _hold(self, digest: str, source: Source, reason: FailureReason, message: str, seconds: float) -> None:
        retry_at = time.time() + seconds
        self.controls.update(digest, lambda control: rules.after_hold(control, source, reason, message, retry_at))
