"""Which connection fetches which bytes. Pure: the caller holds a lock and tells the time.

Invariant: a missing byte belongs to at most one claim; what was claimed and not fetched is missing again. The first gap
is claimed first, and never further than a window beyond the first missing byte, so the prefix grows steadily. Where no
gap is left, a connection without work takes over the second half of the claim that would end last, or all of one that
hardly moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.downloader.limits import Limits
from services.downloader.transfer.ranges import Ranges, add_range, covered, first_gap, prefix

# Ranges that each connection is to fetch of a small file, so that all end at about the same time.
_RANGES_PER_CONNECTION = 4
# The rate of a claim says nothing before this time: the first bytes come with the head of the answer (seconds).
_TELLING_SECONDS = 1.0
# A claim that would end sooner than this is not worth another request (seconds).
_WORTH_SECONDS = 0.5
# One that hardly moves is taken over after this time, four times as long each time that it happens again (seconds).
_RESCUE_SECONDS = 5.0
_RESCUE_GROWTH = 4


@dataclass(slots=True, eq=False)
class Claim:
    """The range of one request: `[at, end)` is still to come. Bytes, seconds.

    `since` is its beginning, `moved_at` when its last bytes came. `is_cut`: another claim took over its end.
    `relieved`: the claim that this one has taken over completely, the `rescues`-th time for these bytes.
    """

    start: int
    at: int
    end: int
    since: float
    moved_at: float
    rescues: int = 0
    relieved: Claim | None = None
    is_cut: bool = False

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.end - self.at

    def seconds_left(self, now: float) -> float:
        """Seconds until its end at the rate so far, once that can be told, but no less than it has not moved for."""
        came, elapsed = self.at - self.start, now - self.since
        at_this_rate = elapsed * self.left / came if came and elapsed >= _TELLING_SECONDS else 0.0
        return max(at_this_rate, now - self.moved_at)


@dataclass(slots=True)
class Planner:
    """Hands out the missing ranges of a file of `size` of which `held` is there."""

    held: Ranges
    size: int
    limits: Limits
    _claims: list[Claim] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self.held == ((0, self.size),)

    @property
    def received(self) -> int:
        """Bytes that are there."""
        return covered(self.held)

    @property
    def first_missing(self) -> int:
        """The first byte that is not there."""
        return prefix(self.held)

    @property
    def range_bytes(self) -> int:
        """Bytes of one request: the limit, less for a file that would not keep every connection busy."""
        if self.limits.connections == 1:
            return self.limits.range_bytes
        fair = self.size // (self.limits.connections * _RANGES_PER_CONNECTION)
        return min(self.limits.range_bytes, max(fair, self.limits.least_range_bytes))

    def claim(self, now: float, until: int) -> Claim | None:
        """Claim a range below `until`; None when there is nothing to do for one more connection now."""
        taken = self.held
        for claim in self._claims:
            taken = add_range(taken, claim.at, claim.end)
        gap = first_gap(taken, self.size)
        bound = min(prefix(self.held) + self.limits.window_bytes, until)
        if gap is not None and gap[0] < bound:
            end = min(gap[0] + self.range_bytes, gap[1], until)
            return self._add(Claim(gap[0], gap[0], end, now, now))
        return self._relieve(now)

    def advance(self, claim: Claim, count: int, now: float) -> int:
        """Tell that `count` bytes came for a claim; return how many of them are still its own, and are there now."""
        own = max(0, min(count, claim.left))
        self.held = add_range(self.held, claim.at, claim.at + own)
        claim.at += own
        claim.moved_at = now
        return own

    def widen(self, claim: Claim) -> None:
        """The answer brings everything from the claim's start on: nothing else is to be asked for."""
        claim.end = self.size

    def release(self, claim: Claim) -> None:
        """Give a claim back; what of it did not come is missing again."""
        if claim in self._claims:
            self._claims.remove(claim)

    def _add(self, claim: Claim) -> Claim:
        self._claims.append(claim)
        return claim

    def _relieve(self, now: float) -> Claim | None:
        running = [claim for claim in self._claims if claim.left > 0]
        if not running:
            return None
        last = max(running, key=lambda claim: claim.seconds_left(now))
        seconds = last.seconds_left(now)
        if last.left >= 2 * self.limits.least_range_bytes and seconds >= _WORTH_SECONDS:
            middle = last.at + last.left // 2
            share = Claim(middle, middle, last.end, now, now, last.rescues)
            last.end, last.is_cut = middle, True
            return self._add(share)
        patience = _RESCUE_SECONDS * _RESCUE_GROWTH**last.rescues
        if seconds >= patience and now - last.since >= patience:
            whole = Claim(last.at, last.at, last.end, now, now, last.rescues + 1, relieved=last)
            last.end, last.is_cut = last.at, True
            return self._add(whole)
        return None
