"""Models that left the genesis: noted since when, and removed after R3MES_RETAIN_HOURS where that is set.

Order of a look: trust → each verified model: facts, `retention_rules` (pure), the step → partials that nobody resumes.
A model is removed under its lock and `trust/.lock`, with trust read again: nothing that is pinned is ever touched.
"""

from __future__ import annotations

import time

import structlog

from services.verifier.existing import has_verified_name, verified_digest_dirs
from services.verifier.metrics import Deletion
from services.verifier.orphans import partial_digests, sweep_partial
from services.verifier.removal import remove_verified
from services.verifier.retention_rules import RetentionFacts, RetentionStep, absent_seconds, next_step
from services.verifier.verification import Verifier
from shared.acceptance.unpinned import pinned_for_now
from shared.errors import R3mesError
from shared.store.atomic import fsync_dir
from shared.store.records import AcceptedDocument, UnpinnedNote

log = structlog.get_logger(__name__)


class Retention:
    """Counts for how long models have been out of the genesis. One for a process, used by one thread."""

    def __init__(self, verifier: Verifier, retain_hours: float | None) -> None:
        self._verifier = verifier
        self._layout = verifier.layout
        self._retain_seconds = None if retain_hours is None else retain_hours * 3600
        self._noted: dict[str, tuple[UnpinnedNote, float]] = {}  # what this process wrote, and when (monotonic)
        self._complaints: dict[str, str] = {}  # said once

    def look(self) -> None:
        """Look at every verified model, and do what is due; raises nothing for what lies in the store."""
        pinned = self._verifier.poll_trust().digests
        accepted = AcceptedDocument.read(self._layout.accepted)
        if accepted is None:
            return  # an acceptance is under way
        for directory in verified_digest_dirs(self._layout):
            digest = directory.name
            if self._verifier.stop.is_set():
                return
            try:
                self._look_at(digest, accepted.accepted_at, is_pinned=digest in pinned)
                self._complaints.pop(digest, None)
            except (OSError, R3mesError) as error:
                self._complain(digest, error.message if isinstance(error, R3mesError) else str(error))
        for digest in partial_digests(self._layout) - pinned:
            self._sweep_partial(digest)

    def _look_at(self, digest: str, accepted_at: float, *, is_pinned: bool) -> None:
        if not has_verified_name(self._layout, digest):
            return
        note = UnpinnedNote.read(self._layout.unpinned_note(digest))
        written, at = self._noted.get(digest, (None, 0.0))
        is_ours = note is not None and note == written
        facts = RetentionFacts(is_pinned, note, accepted_at, time.time(), time.monotonic() - at if is_ours else None)
        match next_step(facts, self._retain_seconds):
            case RetentionStep.NOTHING:
                return
            case RetentionStep.FORGET:
                self._noted.pop(digest, None)
                self._layout.unpinned_note(digest).unlink(missing_ok=True)
                fsync_dir(self._layout.verified_dir(digest))
                log.info("a model is pinned again", sha256=digest)
            case RetentionStep.NOTE:
                self._note(digest, facts)
            case RetentionStep.REMOVE:
                self._remove(digest, absent_seconds(facts))

    def _note(self, digest: str, facts: RetentionFacts) -> None:
        note = UnpinnedNote(
            sha256=digest,
            absent_seconds=absent_seconds(facts),
            counted_at=facts.now,
            accepted_at=facts.accepted_at,
        )
        note.write(self._layout.unpinned_note(digest))
        self._noted[digest] = note, time.monotonic()
        if facts.note is None:
            log.info("a verified model is not pinned any more", sha256=digest, retain_seconds=self._retain_seconds)

    def _remove(self, digest: str, absent: float) -> None:
        with self._verifier.lock_of(digest), pinned_for_now(self._layout) as pinned:
            if digest in pinned:
                return  # accepted or staged a moment ago; the next look forgets the note
            removed = remove_verified(self._layout, digest)
        self._noted.pop(digest, None)
        self._verifier.metrics.deletions.labels(reason=Deletion.RETENTION).inc(removed.files)
        log.info(
            "removed a model that left the genesis", sha256=digest, bytes=removed.bytes, absent_seconds=round(absent)
        )
        self._verifier.tell_verdict(digest)

    def _sweep_partial(self, digest: str) -> None:
        """Remove the partial of a download that is not pinned any more, once the downloader has removed its half."""
        with self._verifier.lock_of(digest):
            if self._verifier.copies.get(digest) is None and sweep_partial(self._layout, digest):
                self._verifier.metrics.deletions.labels(reason=Deletion.ORPHAN).inc()

    def _complain(self, digest: str, message: str) -> None:
        if self._complaints.get(digest) != message:
            self._complaints[digest] = message
            log.warning("cannot look after a model that left the genesis", sha256=digest, error=message)
