"""Which place of a source a connection asks. Pure: the caller holds a lock.

A place that gave no bytes sinks below those that did until it gives some again; one that failed for good is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Places:
    """`alive` places by their index in the supply, in its order; `spread`: connections are dealt out over the best."""

    alive: list[int]
    spread: bool = False
    _misses: dict[int, int] = field(default_factory=dict)

    def pick(self, lane: int) -> int:
        """Return the place for a connection; there must be one alive."""
        least = min(self._misses.get(place, 0) for place in self.alive)
        best = [place for place in self.alive if self._misses.get(place, 0) == least]
        return best[lane % len(best)] if self.spread else best[0]

    def worked(self, place: int) -> None:
        """A whole range came."""
        self._misses.pop(place, None)

    def missed(self, place: int) -> None:
        """It gave nothing, or broke."""
        self._misses[place] = self._misses.get(place, 0) + 1

    def drop(self, place: int) -> bool:
        """It will not work by trying again; tell whether another is left."""
        if place in self.alive:
            self.alive.remove(place)
        return bool(self.alive)
