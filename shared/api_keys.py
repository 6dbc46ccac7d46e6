"""Who carries an API key. Pure; the same rule for the miner's `/v1` and the downloader's changes."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


def is_authorised(header: str | None, keys: Sequence[str]) -> bool:
    """Tell whether an `Authorization` header carries one of `keys`; with no keys everybody is authorised.

    Every key is compared, so that the time tells nothing of which one nearly fits.
    """
    if not keys:
        return True
    scheme, _, given = (header or "").partition(" ")
    offered = given.strip().encode("utf-8", errors="replace")
    matches = [hmac.compare_digest(offered, key.encode()) for key in keys]
    return any(matches) and scheme.lower() == "bearer"
