"""What a miner's processes hold, and whether it grew; the tally of how requests ended against the miner's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.integration.miner.stand import Miner
from tests.support.soak_client import LEFT, Ending

MIB = 1024 * 1024
# An allocator keeps what a busy moment needed; a leak of a few KiB a request passes this within some minutes.
GROWTH_RATIO, GROWTH_BYTES = 1.10, 20 * MIB
ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
SERVER_OUTCOMES = ("ok", "invalid", "unauthorized", "busy", "unavailable", "timeout", "cancelled", "error")


@dataclass(frozen=True, slots=True)
class Holding:
    """What one process holds: bytes of memory, descriptors, threads."""

    rss: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Holding:
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())

    def __str__(self) -> str:
        return f"{self.rss / MIB:.1f} MiB {self.descriptors} fds {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Quiet:
    """All processes of a miner at a moment when it does nothing."""

    engine_pid: int
    api: Holding
    engine: Holding
    nursery: Holding


def look(miner: Miner, marker: str) -> Quiet:
    """Look at a miner that does nothing; raises AssertionError while there is more than its three processes."""
    api = psutil.Process(miner.pid)
    family = api.children(recursive=True)
    assert len(family) == 2, family
    engine, nursery = miner.engines()[0], next(each for each in family if each.ppid() != api.pid)
    assert marked(marker) == {api.pid, engine.pid, nursery.pid}
    connections = [each for each in api.net_connections("inet") if each.status != psutil.CONN_LISTEN]
    assert not connections, connections
    return Quiet(engine.pid, Holding.of(api), Holding.of(engine), Holding.of(nursery))


def marked(marker: str) -> set[int]:
    """Return the processes with this name in their environment, children of the dead among them."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if marker in process.environ():
                found.add(process.pid)
    return found


@dataclass(slots=True)
class History:
    """The quiet moments, in their order; the first is the end of the warm-up."""

    moments: list[Quiet] = field(default_factory=list)

    def add(self, now: Quiet) -> None:
        """Compare with what came before; raises AssertionError for growth."""
        self.moments.append(now)
        first = self.moments[0]
        of_this_engine = next(one for one in self.moments if one.engine_pid == now.engine_pid)
        _assert_flat("the API process", first.api, now.api)
        _assert_flat("the engine", of_this_engine.engine, now.engine)
        _assert_flat("the grammars' nursery", of_this_engine.nursery, now.nursery)
        assert now.engine.descriptors == first.engine.descriptors, (first, now)
        # The pool of the API's event loop starts a thread when none is free, up to its bound.
        assert now.api.threads <= first.api.threads + (os.cpu_count() or 1) + 4, (first, now)
        assert (now.engine.threads, now.nursery.threads) == (first.engine.threads, first.nursery.threads), (first, now)

    def lives(self) -> list[str]:
        """Describe each process from its first quiet moment to its last."""
        lines = [f"API: {self.moments[0].api} -> {self.moments[-1].api}"]
        for number, pid in enumerate(dict.fromkeys(one.engine_pid for one in self.moments), 1):
            life = [one for one in self.moments if one.engine_pid == pid]
            lines.append(f"engine {number}: {life[0].engine} -> {life[-1].engine}, {len(life)} looks")
        return lines


def _assert_flat(name: str, first: Holding, now: Holding) -> None:
    assert now.rss <= first.rss * GROWTH_RATIO + GROWTH_BYTES, f"{name} grew: {first} -> {now}"
    assert now.descriptors == first.descriptors, f"{name} holds other descriptors: {first} -> {now}"


class Tally:
    """How the requests of all clients ended."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()  # endpoint, outcome
        self.statuses: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.longest = 0.0
        self.longest_kind = ""

    def add(self, ending: Ending) -> None:
        self.outcomes[ENDPOINTS[ending.ask.path], ending.outcome] += 1
        status = LEFT if ending.left else str(ending.status)
        self.statuses[f"{status} in a stream" if ending.within and status not in (LEFT, "200") else status] += 1
        self.kinds[ending.ask.kind] += 1
        if ending.seconds > self.longest:
            self.longest, self.longest_kind = ending.seconds, f"{ending.ask.kind}, {status}"

    def assert_counted(self, miner: Miner) -> None:
        """Hold that the miner counted each request once, and as its client saw it unless that one had left."""
        for endpoint in ENDPOINTS.values():
            counted = {one: _count(miner, endpoint, one) for one in SERVER_OUTCOMES}
            seen = {one: self.outcomes[endpoint, one] for one in SERVER_OUTCOMES}
            left = self.outcomes[endpoint, LEFT]
            assert sum(counted.values()) == sum(seen.values()) + left, (endpoint, counted, seen, left)
            for outcome in SERVER_OUTCOMES:
                assert seen[outcome] <= counted[outcome] <= seen[outcome] + left, (endpoint, counted, seen, left)
            assert counted["error"] == counted["unauthorized"] == 0, counted

    def __str__(self) -> str:
        statuses, kinds = (
            ", ".join(f"{name}: {count}" for name, count in sorted(one.items())) for one in (self.statuses, self.kinds)
        )
        total = self.statuses.total()
        return f"{total} requests ({kinds}) ended: {statuses}; longest {self.longest:.1f} s ({self.longest_kind})"


def _count(miner: Miner, endpoint: str, outcome: str) -> int:
    return int(miner.metric("r3mes_miner_requests_total", endpoint=endpoint, outcome=outcome))


def undeserved(endings: Iterable[Ending], *, crashed: bool) -> list[str]:
    """Name each request that ended in a way that it did not deserve; `crashed`: the engine died in that time."""
    found = []
    for ending in endings:
        deserved = {ending.ask.refusal or 200, 429, 504}
        # A blamed request is refused for minutes, also when it comes again later.
        deserved |= {422, 503} if crashed else {422}
        if not ending.left and ending.status not in deserved:
            found.append(
                f"{ending.status} after {ending.seconds:.1f} s: {ending.ask.kind} {ending.ask.content[:300]!r}"
            )
    return found
