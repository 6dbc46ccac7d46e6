"""What may be deleted from the store for want of a pin: decided while no acceptance can come in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from shared.acceptance.trust_state import trust_lock
from shared.errors import StoreError
from shared.store.layout import StoreLayout
from shared.store.trust import read_trust


@contextmanager
def pinned_for_now(layout: StoreLayout) -> Iterator[frozenset[str]]:
    """Hold `trust/.lock` and yield every digest that is pinned, read under it; who deletes holds nobody up for long.

    Raises as `read_pinned` does.
    """
    with trust_lock(layout):
        yield read_pinned(layout)


def read_pinned(layout: StoreLayout) -> frozenset[str]:
    """Return every digest that is accepted or staged.

    Raises StoreError or GenesisError where it cannot be known: the pair disagrees, or what is staged cannot be read.
    """
    trust = read_trust(layout)
    if trust.staged is None and os.path.lexists(layout.next_genesis):
        raise StoreError(
            f"{layout.next_genesis} cannot be read, so nobody knows what it pins",
            next_step="stage the genesis again, or accept one: both replace it",
        )
    return trust.digests
