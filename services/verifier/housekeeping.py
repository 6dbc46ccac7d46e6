"""What a start sweeps up, the orphans of every crash, and what the scrub reads again.

Order of a start: temporaries of documents, named copies, interrupted claims, partials without their other half, then
verified files against receipts.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import structlog

from services.verifier.existing import Provenance, verified_digest_dirs
from services.verifier.incoming import sweep_claimed
from services.verifier.low_space import remove_partial
from services.verifier.metrics import Deletion, Result
from services.verifier.verification import Verifier, find_pin
from shared.errors import R3mesError
from shared.store.atomic import sweep_temporaries
from shared.store.layout import is_digest
from shared.store.trust import Trust

# Our own named copies only: low-space partials have no second part in their names and are resumed.
_NAMED_COPY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")

SCRUB_LOOK_SECONDS = 3600.0  # how often receipts are looked at; a fresh one costs one stat

log = structlog.get_logger(__name__)


def scrub(verifier: Verifier, hours: float) -> None:
    """Read verified files again whose receipt is older than `hours`, until the verifier stops."""
    while not verifier.stop.wait(min(SCRUB_LOOK_SECONDS, hours * 3600)):
        read_again = recheck(verifier, rehash_before=time.time() - hours * 3600)
        for result, files in read_again.items():
            verifier.metrics.scrub_files.labels(result=result).inc(files)


def recheck(verifier: Verifier, *, rehash_before: float = 0.0) -> Counter[Result]:
    """Compare every verified file with its receipt; re-hash those that differ, rewrite the receipt or quarantine.

    Receipts older than `rehash_before` (seconds since the epoch) are not believed. Returns how many files were read
    again, by result.
    """
    results: Counter[Result] = Counter()
    trust = verifier.poll_trust()
    for directory in verified_digest_dirs(verifier.layout):
        if verifier.stop.is_set():
            break
        results.update(_recheck_one(verifier, trust, directory.name, rehash_before))
    return results


def _recheck_one(verifier: Verifier, trust: Trust, digest: str, rehash_before: float) -> dict[Result, int]:
    pinned = find_pin(trust, digest)
    wanted, genesis_sha256 = (None, trust.genesis.sha256) if pinned is None else (pinned[0].file_name, pinned[1])
    try:
        with verifier.lock_of(digest):
            settled = verifier.existing.settle(digest, wanted, Provenance(genesis_sha256), rehash_before=rehash_before)
    except (OSError, R3mesError) as error:
        log.warning("a verified file cannot be checked", sha256=digest, error=str(error))
        return {Result.ERROR: 1}
    verifier.count_settled(settled.quarantined)
    if settled.quarantined:
        log.error("a verified file had changed and is gone", sha256=digest)
        verifier.tell_verdict(digest)
    elif settled.rehashed:
        log.info("a verified file was hashed again and is right", sha256=digest)
    return {Result.MISMATCH: settled.quarantined, Result.MATCH: settled.rehashed - settled.quarantined}


def sweep_orphans(verifier: Verifier) -> None:
    """Remove what a crash left that nobody will come back for; quick, and before anything else runs."""
    layout = verifier.layout
    for directory in (layout.rejected, layout.partial, *verified_digest_dirs(layout)):
        with suppress(OSError):
            sweep_temporaries(directory)
    orphans = 0
    for path in _named_copies(layout.partial):
        with suppress(OSError):
            path.unlink()
            orphans += 1
    for digest in verifier.trust.current.digests:
        sweep_claimed(layout, digest)
    for digest in _partial_digests(layout.partial):
        with suppress(OSError):
            if _is_gone(layout.data(digest)):  # its other half, whether pinned or not
                orphans += remove_partial(layout, digest)
    for directory in verified_digest_dirs(layout):
        with suppress(OSError):  # made for a promotion that did not come; not empty is the rule
            directory.rmdir()
    if orphans:
        verifier.metrics.deletions.labels(reason=Deletion.ORPHAN).inc(orphans)
        log.info("removed copies that a crash left", files=orphans)


def _is_gone(path: Path) -> bool:
    """Tell whether there is nothing at `path`; raises OSError when that cannot be known now."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def _partial_digests(partial: Path) -> set[str]:
    try:
        return {name for path in partial.iterdir() if is_digest(name := path.name.removesuffix(".json"))}
    except OSError:
        return set()


def _named_copies(partial: Path) -> list[Path]:
    try:
        return [path for path in partial.iterdir() if _NAMED_COPY.fullmatch(path.name)]
    except OSError:
        return []
