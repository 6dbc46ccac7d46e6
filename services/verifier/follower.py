"""One step of following a download: copy and hash what its journal announces, so that the job finds little left.

A follower never pronounces anything but lost bytes: the job does, with what was copied. It runs only for a digest that
is pinned and has no verified name, by a journal that holds; another generation drops the copy and begins anew. Nothing
is kept of it across a restart but a low-space partial, which is hashed again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.verifier.announced import LeaseWatch, readable_prefix
from services.verifier.existing import has_verified_name
from services.verifier.incoming import Incoming, open_incoming
from services.verifier.low_space import BytesLostError, LowSpaceCopy, settle_partial
from services.verifier.verification import Verifier, expected_size, find_pin
from shared.errors import DiskFullError, R3mesError
from shared.genesis import ModelPin
from shared.store.records import Journal

# Copies grow in whole steps of this size while the download runs: aligned, as O_DIRECT wants it.
STEP_BYTES = 1024 * 1024
# How much is copied before another download has its turn, and before a waiting job takes over.
TURN_BYTES = 16 * 1024 * 1024
# After an error a digest is left alone for so long: whatever it is, it is not over in a moment.
REST_SECONDS = 10.0
# How long the copy of a download that nobody writes is kept: its room may be another model's.
IDLE_SECONDS = 300.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What is remembered of one download: its writer, its last progress, and why it is left alone for now."""

    lease: LeaseWatch
    rests_until: float = 0.0
    progress_at: float = 0.0
    complaint: str = ""  # what was said last, so that it is said once
    left: tuple[str, int] | None = None  # the generation, and what was announced when its copy was given up


class Follower:
    """Follows the downloads of one verifier, a step at a time; steps of different digests may run side by side."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._boot_id = _boot_id()
        self._known: dict[str, _Known] = {}

    def candidates(self) -> set[str]:
        """Return the digests worth a step: pinned ones with an incoming directory, and those with a copy."""
        pinned = self._verifier.poll_trust().digests
        try:
            present = {path.name for path in self._verifier.layout.incoming.iterdir()}
        except OSError:
            present = set()
        return (present & pinned) | self._verifier.copies.digests()

    def step(self, digest: str) -> bool:
        """Copy up to TURN_BYTES of what is announced; return whether there was more. Never raises for the store."""
        known = self._known.setdefault(digest, _Known(LeaseWatch(self._boot_id)))
        lock = self._verifier.lock_of(digest)
        # A busy lock: a job or the scrub works on it.
        if time.monotonic() < known.rests_until or not lock.acquire(blocking=False):
            return False
        try:
            return self._step(digest, known)
        except (OSError, R3mesError) as error:
            self._give_way(digest, known, error)
            return False
        finally:
            lock.release()

    def _step(self, digest: str, known: _Known) -> bool:
        verifier = self._verifier
        pinned = find_pin(verifier.trust.current, digest)
        if pinned is None or has_verified_name(verifier.layout, digest):
            self._forget(digest)
            return False
        pin, genesis_sha256 = pinned
        with open_incoming(verifier.layout, digest) as incoming:
            journal = incoming.read_journal() if incoming is not None else None
            if incoming is None or journal is None:
                self._forget(digest)
                settle_partial(verifier.layout, digest, incoming, None)
                return False
            try:
                return self._advance(pin, known, incoming, journal)
            except BytesLostError as error:
                verifier.copies.drop(digest)
                verifier.void(genesis_sha256, incoming, journal, error.message)
        verifier.tell_verdict(digest)
        return False

    def _advance(self, pin: ModelPin, known: _Known, incoming: Incoming, journal: Journal) -> bool:
        verifier = self._verifier
        size = expected_size(pin, journal)
        live_instance = known.lease.live_instance(incoming.read_lease(), now=time.monotonic())
        announced = readable_prefix(journal, live_instance, incoming.status.st_size)
        announced = min(announced, size) // STEP_BYTES * STEP_BYTES
        begun = verifier.copies.take(incoming, journal)
        if begun is None:
            if journal.complete or (
                journal.mode == "normal" and (announced == 0 or known.left == (journal.generation, announced))
            ):
                return False  # the job's from the start; or nothing new
            begun = verifier.copies.begin(incoming, journal, size, followed=True)
            known.progress_at = time.monotonic()
        verifier.copies.keep(pin.sha256, begun)
        before = begun.copy.hashing.done
        until = min(announced, before + TURN_BYTES)
        begun.copy.advance(incoming.descriptor, until=until, stop=verifier.stop, on_bytes=begun.on_bytes)
        done = begun.copy.hashing.done
        verifier.metrics.verified_bytes.inc(done - before)
        if done > before or live_instance is not None or journal.complete:
            known.progress_at = time.monotonic()
        elif time.monotonic() - known.progress_at > IDLE_SECONDS and not isinstance(begun.copy, LowSpaceCopy):
            known.left = journal.generation, announced
            verifier.copies.drop(pin.sha256)
        return before < done < announced and not verifier.stop.is_set()

    def _give_way(self, digest: str, known: _Known, error: OSError | R3mesError) -> None:
        """Drop what cannot go on: the download needs the room. A partial that only lacks room is as good as before."""
        known.rests_until = time.monotonic() + REST_SECONDS
        begun = self._verifier.copies.get(digest)
        if begun is not None and not (isinstance(error, DiskFullError) and isinstance(begun.copy, LowSpaceCopy)):
            self._verifier.copies.drop(digest)
        message = error.message if isinstance(error, R3mesError) else str(error)
        if message != known.complaint:
            known.complaint = message
            log.warning("cannot follow a download for now", sha256=digest, error=message)

    def _forget(self, digest: str) -> None:
        self._verifier.copies.drop(digest)
        self._known.pop(digest, None)


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
