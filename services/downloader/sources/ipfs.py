"""IPFS gateways: one CID behind several addresses, so every gateway's bytes are the same, unless one lies.

Ranges are spread over all gateways at first. Which of them gave a wrong byte cannot be told from the digest of the
whole, so after a mismatch each further try asks one gateway alone, in the configured order (a local Kubo is the first),
and goes to the next only where that one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.downloader.interrupt import Interrupt
from services.downloader.sources.session import Web
from services.downloader.sources.web import Address, Judge, WebSupply
from shared.states import Source


class IpfsSupply(WebSupply):
    """`mismatches`: how many tries of this source have ended with wrong bytes."""

    together = True

    def __init__(
        self,
        kind: Source,
        addresses: Sequence[Address],
        make_web: Callable[[Interrupt], Web],
        judge: Judge,
        connections: int,
        mismatches: int,
    ) -> None:
        super().__init__(kind, in_turn(addresses, mismatches), make_web, judge, connections)
        self.spread = mismatches == 0


def in_turn(addresses: Sequence[Address], mismatches: int) -> tuple[Address, ...]:
    """Return the addresses so that the try after `mismatches` wrong ones begins with one that had no turn alone yet."""
    first = max(0, mismatches - 1) % max(1, len(addresses))
    return (*addresses[first:], *addresses[:first])


def tries(gateways: int) -> int:
    """Return how many wrong files the source may deliver: one of all together, then one of each alone."""
    return 1 + gateways
