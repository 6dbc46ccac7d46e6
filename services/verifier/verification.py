"""One verification, step by step as design §2 "Verify" numbers them.

Invariant: a name enters `verified/<sha256>/` only through `promote`, after one pass that hashed a private copy to
exactly that digest; incoming is touched only after that name is durable, or after the record of a mismatch is.
A job that finds nothing left to do is a success, so that duplicates and late jobs are harmless. What a follower has
copied while the download ran is taken over; when it does not match, the file is read once more from byte 0.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from enum import StrEnum
from typing import assert_never

import structlog

from services.verifier.copies import Begun, Copies
from services.verifier.existing import ExistingFiles, Provenance, write_receipt
from services.verifier.incoming import Incoming, open_incoming, sweep_claimed
from services.verifier.low_space import BytesLostError, settle_partial
from services.verifier.metrics import Deletion, Result, VerifierMetrics
from services.verifier.progress import Observer
from services.verifier.promote import promote
from services.verifier.rejected import write_rejected
from services.verifier.verdict import Pass, Verdict, judge
from shared.errors import DiskFullError, R3mesError
from shared.genesis import ModelPin
from shared.queue import JobRefusal
from shared.store.layout import StoreLayout
from shared.store.records import Journal, RejectedRecord
from shared.store.trust import Trust, TrustWatch

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How a job ended; also what RQ keeps as its result."""

    PROMOTED = "promoted"
    ALREADY_VERIFIED = "already_verified"
    REJECTED = "rejected"
    NOTHING = "nothing"  # no complete file to judge
    STOPPED = "stopped"
    ERROR = "error"  # nothing was decided; the reconciler asks again
    REFUSED = "refused"  # not pinned

    @property
    def is_verdict(self) -> bool:
        """Whether others should look at the store now."""
        return self in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED, Outcome.REJECTED}


class Verifier:
    """Verifies digests of one store; jobs come one at a time, followers and the scrub run beside them."""

    def __init__(
        self,
        layout: StoreLayout,
        trust: TrustWatch,
        metrics: VerifierMetrics,
        stop: threading.Event,
        observer: Observer,
    ) -> None:
        self.layout = layout
        self.trust = trust
        self.metrics = metrics
        self.stop = stop
        self.existing = ExistingFiles(layout, stop)
        self.copies = Copies(layout, observer)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._observer = observer

    def verify(self, digest: str) -> Outcome:
        """Verify what lies in incoming for `digest`; never raises for anything that lies in the store."""
        trust = self.poll_trust()
        pinned = find_pin(trust, digest)
        if pinned is None:
            self.metrics.count_refused(JobRefusal.NOT_PINNED)
            log.warning("refused a job for a digest that is not pinned", sha256=digest)
            return Outcome.REFUSED
        with self.lock_of(digest):
            try:
                outcome = self._verify(*pinned)
            except (OSError, R3mesError) as error:
                self.metrics.verifications.labels(result=Result.ERROR).inc()
                message = error.message if isinstance(error, R3mesError) else str(error)
                log.warning("no verdict, to be tried again", sha256=digest, error=message)
                outcome = Outcome.ERROR
        if outcome.is_verdict:
            self.tell_verdict(digest)
        return outcome

    def lock_of(self, digest: str) -> threading.Lock:
        """Return what a job, a follower and the scrub hold while they work on one digest."""
        return self._locks[digest]

    def tell_verdict(self, digest: str) -> None:
        """Let others know that the store changed for `digest`."""
        self._observer.tell_verdict(digest)

    def poll_trust(self) -> Trust:
        """Return what is accepted and staged now."""
        self.trust.poll()
        self.metrics.common.set_genesis(self.trust.current.genesis.sha256)
        return self.trust.current

    def count_settled(self, quarantined: int) -> None:
        """Count files that were taken out of `verified/`."""
        self.metrics.deletions.labels(reason=Deletion.TAMPERED).inc(quarantined)

    def _verify(self, pin: ModelPin, genesis_sha256: str) -> Outcome:
        swept = sweep_claimed(self.layout, pin.sha256)
        if swept:
            log.info("put back what a crash left claimed", sha256=pin.sha256, files=swept)
        # Step 0: is the verified name there, and right?
        settled = self.existing.settle(pin.sha256, pin.file_name, Provenance(genesis_sha256))
        self.count_settled(settled.quarantined)
        if settled.stopped:
            return Outcome.STOPPED
        # Step 1: a regular file with one link, or nothing.
        with open_incoming(self.layout, pin.sha256) as incoming:
            is_verified = settled.file_name is not None
            journal = incoming.read_journal() if incoming is not None else None
            if is_verified or journal is None:
                self.copies.drop(pin.sha256)
                settle_partial(self.layout, pin.sha256, incoming, journal, is_verified=is_verified)
            if is_verified:
                if incoming is not None:
                    self._remove(incoming, None)
                return Outcome.ALREADY_VERIFIED
            if incoming is not None and journal is None and not incoming.lacks_journal():
                self.metrics.verifications.labels(result=Result.ERROR).inc()
                log.warning("the journal is void: it says nothing of this data", sha256=pin.sha256)
            if incoming is None or journal is None or not journal.complete:
                return Outcome.NOTHING
            return self._judge(pin, genesis_sha256, incoming, journal)

    def _judge(self, pin: ModelPin, genesis_sha256: str, incoming: Incoming, journal: Journal) -> Outcome:
        """Finish what a follower copied; when that has no verdict, read once more from byte 0."""
        provenance = Provenance(genesis_sha256, journal.source, journal.revision)
        try:
            followed = self.copies.take(incoming, journal)
            if followed is not None:
                outcome = self._judge_and_act(followed, pin, provenance, incoming, journal)
                if followed.copy.may_reject or outcome is not Outcome.NOTHING:
                    return outcome
                log.info("what was copied along the way does not match, read once more", sha256=pin.sha256)
            # Step 2: a copy of our own, with room for it.
            begun = self.copies.begin(incoming, journal, expected_size(pin, journal), followed=False)
            return self._judge_and_act(begun, pin, provenance, incoming, journal)
        except BytesLostError as error:
            self.void(genesis_sha256, incoming, journal, error.message)
            return Outcome.REJECTED

    def _judge_and_act(
        self, begun: Begun, pin: ModelPin, provenance: Provenance, incoming: Incoming, journal: Journal
    ) -> Outcome:
        started = time.monotonic()
        followed_bytes = begun.copy.hashing.done
        try:
            # Step 3: read, hash and write each buffer once.
            whole = self._fill(begun, pin, incoming, journal)
            verdict = judge(
                pin.sha256,
                whole,
                generation_before=journal.generation if begun.copy.may_reject else None,
                generation_after=_generation_now(incoming),
            )
            if verdict is Verdict.MATCH:
                # Step 4: durable bytes, durable name, then the receipt.
                status = promote(begun.copy, self.layout, pin.sha256, pin.file_name)
                self.metrics.promotions.inc()
                begun.copy.clear()
                write_receipt(self.layout, pin.sha256, pin.file_name, status, provenance)
        finally:
            self.copies.end(pin.sha256, begun)
        match verdict:
            case Verdict.STOPPED:
                return Outcome.STOPPED
            case Verdict.UNDECIDED:
                log.info("no verdict on what was read", sha256=pin.sha256)
                return Outcome.NOTHING
            case Verdict.MATCH:
                said = {"file_name": pin.file_name, "bytes": whole.read_bytes, "followed_bytes": followed_bytes}
                log.info("verified", sha256=pin.sha256, **said)
                outcome, result = Outcome.PROMOTED, Result.MATCH
            case Verdict.MISMATCH:
                self._record_mismatch(pin, journal, whole, provenance)
                outcome, result = Outcome.REJECTED, Result.MISMATCH
            case unknown:
                assert_never(unknown)
        # Then incoming, and only the inode that was hashed; of a partial that is wrong the rest after it.
        removed = self._remove(incoming, journal.generation)
        if verdict is Verdict.MISMATCH:
            begun.copy.clear()
            self.metrics.deletions.labels(reason=Deletion.MISMATCH).inc(removed)
        self.metrics.verifications.labels(result=result).inc()
        self.metrics.duration.observe(time.monotonic() - started)
        return outcome

    def _fill(self, begun: Begun, pin: ModelPin, incoming: Incoming, journal: Journal) -> Pass:
        before = begun.copy.hashing.done
        try:
            return begun.copy.fill(
                incoming.descriptor, size=expected_size(pin, journal), stop=self.stop, on_bytes=begun.on_bytes
            )
        except DiskFullError:  # of a low-space copy
            self.copies.keep(pin.sha256, begun)  # as good as before, for when there is room
            raise
        finally:
            self.metrics.verified_bytes.inc(begun.copy.hashing.done - before)

    def void(self, genesis_sha256: str, incoming: Incoming, journal: Journal, why: str) -> None:
        """Remove a generation whose bytes are lost; no source is blamed. Raises OSError."""
        log.error("bytes are lost, the download begins anew", sha256=incoming.digest, error=why)
        write_rejected(
            self.layout,
            RejectedRecord(
                sha256=incoming.digest,
                found=None,
                size=journal.size,
                reason="bytes_lost",
                generation=journal.generation,
                source=None,
                revision=journal.revision,
                genesis_sha256=genesis_sha256,
                rejected_at=time.time(),
            ),
        )
        if self._remove(incoming, journal.generation):
            self.metrics.deletions.labels(reason=Deletion.BYTES_LOST).inc()
        settle_partial(self.layout, incoming.digest, None, None)

    def _record_mismatch(self, pin: ModelPin, journal: Journal, whole: Pass, provenance: Provenance) -> None:
        """Step 5: the record comes before the deletion, so that a crash between starts no bill again."""
        log.error(
            "wrong bytes, deleted", sha256=pin.sha256, found=whole.found, bytes=whole.read_bytes, source=journal.source
        )
        write_rejected(
            self.layout,
            RejectedRecord(
                sha256=pin.sha256,
                found=whole.found,
                size=whole.read_bytes,
                reason="mismatch",
                generation=journal.generation,
                source=journal.source,
                revision=journal.revision,
                genesis_sha256=provenance.genesis_sha256,
                rejected_at=time.time(),
            ),
        )

    def _remove(self, incoming: Incoming, generation: str | None) -> bool:
        """Remove incoming; a hostile mode is counted, and stops nothing else."""
        try:
            removed = incoming.remove(generation)
        except OSError as error:
            self.metrics.verifications.labels(result=Result.ERROR).inc()
            log.warning("incoming cannot be removed", sha256=incoming.digest, error=str(error))
            return False
        if not removed:
            log.info("incoming is not what was read any more, left alone", sha256=incoming.digest)
        return removed


def find_pin(trust: Trust, digest: str) -> tuple[ModelPin, str] | None:
    """Return the pin of a digest and the digest of the genesis that pins it; accepted goes before staged."""
    for genesis in (trust.genesis, trust.staged):
        pin = genesis.by_digest(digest) if genesis is not None else None
        if genesis is not None and pin is not None:
            return pin, genesis.sha256
    return None


def expected_size(pin: ModelPin, journal: Journal) -> int:
    """Return after how many bytes (and one more) reading stops: what the genesis says, else the journal, bounded."""
    return pin.size_bytes if pin.size_bytes is not None else min(journal.size, pin.required_bytes)


def _generation_now(incoming: Incoming) -> str | None:
    journal = incoming.read_complete_journal()
    return journal.generation if journal is not None and incoming.is_still_data() else None
