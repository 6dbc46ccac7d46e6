"""What a crash left that nobody will come back for: swept at every start, before anything else runs.

In this order: temporaries of documents, named copies, interrupted claims (of whatever digest: what is not pinned any
more is then the downloader's to remove), partials without their other half, digest directories without a file. An
unnamed copy needs no sweeping; temporaries of the downloader's documents are its own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import structlog

from services.verifier.existing import has_verified_name, verified_digest_dirs
from services.verifier.incoming import sweep_claimed
from services.verifier.low_space import remove_partial
from services.verifier.metrics import Deletion
from services.verifier.removal import remove_verified
from services.verifier.verification import Verifier
from shared.store.atomic import sweep_temporaries
from shared.store.layout import StoreLayout, is_digest

# Our own named copies only: low-space partials have no second part in their names and are resumed.
_NAMED_COPY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")

log = structlog.get_logger(__name__)


def sweep_orphans(verifier: Verifier) -> None:
    """Remove what a crash left; quick. What cannot be removed now is left to the next start."""
    layout = verifier.layout
    for directory in (layout.rejected, layout.partial, *verified_digest_dirs(layout)):
        with suppress(OSError):
            sweep_temporaries(directory)
    orphans = 0
    for path in _entries(layout.partial):
        if _NAMED_COPY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
                orphans += 1
    for path in _entries(layout.incoming):
        if is_digest(path.name):
            sweep_claimed(layout, path.name)
    for digest in partial_digests(layout):
        orphans += sweep_partial(layout, digest)
    for directory in verified_digest_dirs(layout):
        with suppress(OSError):  # made for a promotion that did not come, or left by a removal
            if not has_verified_name(layout, directory.name):
                remove_verified(layout, directory.name)
    if orphans:
        verifier.metrics.deletions.labels(reason=Deletion.ORPHAN).inc(orphans)
        log.info("removed copies that a crash left", files=orphans)


def sweep_partial(layout: StoreLayout, digest: str) -> bool:
    """Remove note and partial of a digest whose other half is gone, whether pinned or not; tell whether it did."""
    with suppress(OSError):
        if _is_gone(layout.data(digest)):
            return remove_partial(layout, digest)
    return False


def _is_gone(path: Path) -> bool:
    """Tell whether there is nothing at `path`; raises OSError when that cannot be known now."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def partial_digests(layout: StoreLayout) -> set[str]:
    """Return the digests of which there is a partial or its note."""
    return {name for path in _entries(layout.partial) if is_digest(name := path.name.removesuffix(".json"))}


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
