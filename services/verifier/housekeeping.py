"""What the verifier does beside verdicts: at a start `sweep_orphans`, `recheck`; from then on a thread of its own.

The thread notes which models left the genesis (`retention`), and scrubs: verified files whose receipt is older than
R3MES_SCRUB_HOURS are read again. It reads in nobody's way (`quiet_reading`) and without a lock, so that no verdict and
no stop waits for it; the digest is locked only to act on what was read, if the file still is what was read.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import structlog

from services.verifier.existing import ALL_BELIEVED, Believed, Provenance, WasRead, verified_digest_dirs
from services.verifier.linux import be_nice
from services.verifier.metrics import Result
from services.verifier.orphans import sweep_orphans
from services.verifier.retention import Retention
from services.verifier.verification import Verifier, find_pin
from shared.errors import R3mesError

__all__ = ["Housekeeper", "recheck", "scrub", "sweep_orphans"]

LOOK_SECONDS = 60.0  # how often receipts and notes are looked at: a few small files for each model
LEAST_PAUSE_SECONDS = 0.5  # however short the settings are
# A receipt from so far in the future was written by a clock that has been set back since.
FUTURE_SECONDS = 24 * 3600.0
# Others go first; not 19, since whoever waits for the interpreter's lock waits for this thread then.
NICENESS = 10

log = structlog.get_logger(__name__)


class Housekeeper:
    """The thread, from `start` until the verifier stops; `has_failed` if it ended for another reason."""

    def __init__(self, verifier: Verifier, *, scrub_hours: float, retain_hours: float | None) -> None:
        self._verifier = verifier
        self._scrub_hours = scrub_hours
        self._retention = Retention(verifier, retain_hours)
        wanted = (hours * 3600 for hours in (scrub_hours, retain_hours) if hours is not None)
        self._pause = max(LEAST_PAUSE_SECONDS, min(LOOK_SECONDS, *wanted))
        self.has_failed = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def _run(self) -> None:
        try:
            be_nice(NICENESS)
            while True:
                self._retention.look()
                if self._verifier.stop.wait(self._pause):
                    return
                scrub(self._verifier, self._scrub_hours)
        except Exception:  # the outermost loop of this thread: the process ends with it
            log.exception("the thread that looks after the store failed")
            self.has_failed = True
            self._verifier.stop.set()


def scrub(verifier: Verifier, hours: float) -> None:
    """Read the verified files again that are due, once, and count them."""
    now = time.time()
    believed = Believed(oldest=now - hours * 3600, newest=now + FUTURE_SECONDS)
    for result, files in recheck(verifier, believed, quietly=True).items():
        verifier.metrics.scrub_files.labels(result=result).inc(files)


def recheck(verifier: Verifier, believed: Believed = ALL_BELIEVED, *, quietly: bool = False) -> Counter[Result]:
    """Compare every verified file with its receipt; re-hash those that differ, rewrite the receipt or quarantine.

    Returns how many files were read again, by result. `quietly`: without holding anything up.
    """
    results: Counter[Result] = Counter()
    for directory in verified_digest_dirs(verifier.layout):
        if verifier.stop.is_set():
            break
        try:
            read = verifier.existing.read_doubtful(directory.name, believed) if quietly else {}
            if read is not None:
                results.update(_settle(verifier, directory.name, believed, read))
        except FileNotFoundError:
            continue  # removed a moment ago
        except (OSError, R3mesError) as error:
            log.warning("a verified file cannot be checked", sha256=directory.name, error=str(error))
            results[Result.ERROR] += 1
    return results


def _settle(verifier: Verifier, digest: str, believed: Believed, read: dict[str, WasRead]) -> dict[Result, int]:
    with verifier.lock_of(digest):
        trust = verifier.poll_trust()  # now: reading may have taken hours
        pinned = find_pin(trust, digest)
        wanted, genesis_sha256 = (None, trust.genesis.sha256) if pinned is None else (pinned[0].file_name, pinned[1])
        settled = verifier.existing.settle(digest, wanted, Provenance(genesis_sha256), believed=believed, read=read)
    verifier.count_settled(settled.quarantined)
    if settled.quarantined:
        log.error("a verified file had changed and is gone", sha256=digest)
        verifier.tell_verdict(digest)
    elif settled.rehashed:
        log.info("a verified file was hashed again and is right", sha256=digest)
    return {Result.MISMATCH: settled.quarantined, Result.MATCH: settled.rehashed - settled.quarantined}
