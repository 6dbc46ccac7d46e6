"""IPFS gateways: one CID behind several addresses, so every gateway's bytes are the same, unless one lies.

Ranges are spread over all gateways at first. Which of them gave a wrong byte cannot be told from the digest of the
whole, so after a mismatch each further try asks one gateway alone, in the configured order (a local Kubo is the first),
and goes to the next only where that one fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.downloader.sources.web import Address


def is_spread(mismatches: int) -> bool:
    """Tell whether the try after `mismatches` wrong ones goes to all gateways at once."""
    return mismatches == 0


def in_turn(addresses: Sequence[Address], mismatches: int) -> tuple[Address, ...]:
    """Return the addresses so that the try after `mismatches` wrong ones begins with one that had no turn alone yet."""
    first = max(0, mismatches - 1) % max(1, len(addresses))
    return (*addresses[first:], *addresses[:first])


def tries(gateways: int) -> int:
    """Return how many wrong files the source may deliver: one of all together, then one of each alone."""
    return 1 + gateways
