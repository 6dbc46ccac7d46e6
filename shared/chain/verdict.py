"""What the answers together say. Pure.

A quorum is more than half of the endpoints that are configured, not of those that answered, all with one and the same
registry. Without one there is no word of the chain, and nothing is stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shared.genesis import ModelPin


@dataclass(frozen=True, slots=True)
class Registry:
    """The model digests (lower-case hex) that a quorum of the chain's nodes holds as active."""

    digests: frozenset[str]

    def lacks(self, pins: Iterable[ModelPin]) -> tuple[ModelPin, ...]:
        """Return the pins that the chain vetoes."""
        return tuple(pin for pin in pins if pin.sha256 not in self.digests)


def quorum(endpoints: int) -> int:
    """Return how many of so many endpoints have to agree."""
    return endpoints // 2 + 1


def agreed(answers: Iterable[frozenset[str]], endpoints: int) -> Registry | None:
    """Return the registry that a quorum of `endpoints` gave, None when there is none."""
    for digests, count in Counter(answers).items():
        if count >= quorum(endpoints):
            return Registry(digests)
    return None


def is_open(answers: Iterable[frozenset[str]], missing: int, endpoints: int) -> bool:
    """Tell whether `missing` more answers could still make a quorum."""
    best = max(Counter(answers).values(), default=0)
    return best + missing >= quorum(endpoints)
