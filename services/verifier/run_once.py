"""One verification, or one removal, without Redis and without a service, for the `r3mes` command.

`Companion` follows a download of the same process, so that its verdict comes moments after the last byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from services.verifier.companion import Companion
from services.verifier.metrics import VerifierMetrics
from services.verifier.progress import SilentObserver
from services.verifier.rejected import remove_rejected
from services.verifier.removal import Removed, remove_verified
from services.verifier.verification import Outcome, Verifier
from shared.store.layout import StoreLayout
from shared.store.trust import TrustWatch

__all__ = ["Companion", "Outcome", "Removed", "remove_rejected", "remove_verified", "verify_once"]


def verify_once(
    layout: StoreLayout,
    digest: str,
    *,
    stop: threading.Event | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Verify what lies in incoming for `digest`, in this thread, and return how it ended.

    `on_bytes(done, size)` is called after every buffer; `stop` ends it early. Raises StoreError when no genesis is
    accepted in the store.
    """
    metrics = VerifierMetrics(CollectorRegistry())
    verifier = Verifier(layout, TrustWatch(layout), metrics, stop or threading.Event(), SilentObserver(on_bytes))
    try:
        return verifier.verify(digest)
    finally:
        verifier.copies.drop(digest)
        verifier.copies.partials.release()
