"""What lies in incoming under a digest that no genesis pins any more: nobody will ask for it, so it makes room."""

from __future__ import annotations

from contextlib import suppress

import structlog

from services.downloader.transfer.incoming import remove_generation
from services.downloader.transfer.lease import LeaseKeeper
from shared.store.layout import StoreLayout, is_digest

log = structlog.get_logger(__name__)


def sweep_unpinned(layout: StoreLayout, keeper: LeaseKeeper, pinned: frozenset[str]) -> None:
    """Remove the incoming directories of digests that are not `pinned`, unless another writer holds one."""
    with suppress(OSError):  # what cannot be removed now is looked at again in the next turn
        for path in sorted(layout.incoming.iterdir()):
            if is_digest(path.name) and path.name not in pinned:
                _remove(layout, keeper, path.name)


def _remove(layout: StoreLayout, keeper: LeaseKeeper, digest: str) -> None:
    lease = keeper.acquire(layout.lease(digest))
    if lease is None:
        return
    try:
        remove_generation(layout, digest)
        layout.control(digest).unlink(missing_ok=True)
    finally:
        keeper.release(layout.lease(digest), lease)
    layout.incoming_dir(digest).rmdir()
    log.info("removed what is not pinned any more", sha256=digest)
