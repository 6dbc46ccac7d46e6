"""Which request kills the engine, by what it asks for and not by its id. Pure: the caller brings the time.

Invariants: a crash that was for one request blames it; one that was for several makes each a suspect, and whoever is a
suspect of a second crash within the window is blamed; an answer that comes to its end clears its request; who is
blamed is refused until the window is over; neither table grows without bound, the oldest entries go first.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Collection

from services.miner.engine.messages import TO_ENGINE, Submit

BLAME_SECONDS = 600.0  # long enough that a client that tries again and again does not keep the engine down
MOST_ENTRIES = 1024  # a table; beyond, whoever floods it has other ways

Fingerprint = bytes


def fingerprint(submit: Submit) -> Fingerprint:
    """Return the SHA-256 of everything that is computed for a request; its id and its seed are left out.

    The seed is drawn anew for each request that gives none, and a crash depends on what is computed, not on the draw.
    """
    same = dataclasses.replace(submit, request_id="", sampling=dataclasses.replace(submit.sampling, seed=0))
    return hashlib.sha256(TO_ENGINE.dump_json(same)).digest()


class Blame:
    """Remembers suspects and blamed requests for `seconds`."""

    def __init__(self, seconds: float = BLAME_SECONDS, most: int = MOST_ENTRIES) -> None:
        self.seconds = seconds
        self._most = most
        self._suspects: OrderedDict[Fingerprint, float] = OrderedDict()  # until when, the oldest first
        self._blamed: OrderedDict[Fingerprint, float] = OrderedDict()

    def crashed(self, working_for: Collection[Fingerprint], now: float, *, others: int = 0) -> frozenset[Fingerprint]:
        """Take note of a crash and return whom it blames; nobody where the engine worked for nobody.

        `others` counts requests of the same work that are not known any more: the engine was not there for one alone.
        """
        self._expire(now)
        different = frozenset(working_for)
        blamed = different if len(different) == 1 and not others else different & self._suspects.keys()
        for one in blamed:
            self._suspects.pop(one, None)
            self._note(self._blamed, one, now)
        for one in different - blamed:
            self._note(self._suspects, one, now)
        return blamed

    def answered(self, submit: Submit) -> None:
        """Take note of an answer that came to its end: its request does not kill the engine."""
        if self._suspects:  # a digest for each answer would be for nothing
            self._suspects.pop(fingerprint(submit), None)

    def refused_for(self, submit: Submit, now: float) -> float | None:
        """Return for how many seconds a request is refused, None when it is welcome."""
        self._expire(now)
        if not self._blamed:
            return None
        until = self._blamed.get(fingerprint(submit))
        return None if until is None else until - now

    def _note(self, table: OrderedDict[Fingerprint, float], one: Fingerprint, now: float) -> None:
        table.pop(one, None)
        table[one] = now + self.seconds
        while len(table) > self._most:
            table.popitem(last=False)

    def _expire(self, now: float) -> None:
        for table in (self._suspects, self._blamed):
            while table and next(iter(table.values())) <= now:
                table.popitem(last=False)
