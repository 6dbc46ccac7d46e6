"""What lies in incoming under a digest that no genesis pins any more: nobody will ask for it, so it makes room."""

from __future__ import annotations

from contextlib import suppress

import structlog

from services.downloader.transfer.incoming import remove_generation
from services.downloader.transfer.lease import LeaseKeeper
from shared.store.layout import StoreLayout, is_digest

# What a verifier that was killed in a removal left of the data: it puts that back at its next start, if there is one.
CLAIMED = ".claimed-*"

log = structlog.get_logger(__name__)


def sweep_unpinned(layout: StoreLayout, keeper: LeaseKeeper, pinned: frozenset[str]) -> None:
    """Remove the incoming directories of digests that are not `pinned`, unless another writer holds one."""
    for digest in unpinned_digests(layout, pinned):
        with suppress(OSError):  # what cannot be removed now is looked at again in the next turn
            remove_unpinned(layout, keeper, digest)


def unpinned_digests(layout: StoreLayout, pinned: frozenset[str]) -> list[str]:
    """Return the digests in incoming that are not `pinned`."""
    try:
        return sorted(
            path.name for path in layout.incoming.iterdir() if is_digest(path.name) and path.name not in pinned
        )
    except OSError:
        return []


def remove_unpinned(layout: StoreLayout, keeper: LeaseKeeper, digest: str) -> bool:
    """Remove what lies in incoming for a digest; False where another writer may be alive. Raises OSError."""
    lease = keeper.acquire(layout.lease(digest))
    if lease is None:
        return False
    try:
        remove_generation(layout, digest)
        for path in (layout.control(digest), *layout.incoming_dir(digest).glob(CLAIMED)):
            path.unlink(missing_ok=True)
    finally:
        keeper.release(layout.lease(digest), lease)
    layout.incoming_dir(digest).rmdir()
    log.info("removed what is not pinned any more", sha256=digest)
    return True
