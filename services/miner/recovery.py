"""Between two engines: who is blamed, whether to start another, and the requests that wait for it.

It outlives every engine. What is stranded was not shown anything yet; it gets the next engine of the same file, or an
error as soon as it is known that none comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.miner.engine.blame import BLAME_SECONDS, Blame
from services.miner.engine.breaker import Breaker, BreakerLimits
from services.miner.engine.client import EngineClient
from services.miner.engine.generation import EngineGoneError, Generation
from services.miner.engine.messages import Submit
from services.miner.engine.watchdog import WatchdogLimits

MAX_FAILED_LOADS = 3  # refusals in a row, of the same file: then a person or another file must come
RETRY_SECONDS = 1.0  # after the first failed load; the second waits twice as long


@dataclass(frozen=True, slots=True)
class Patience:
    """What the miner bears of an engine and of a request before it stops trying."""

    blame_seconds: float = BLAME_SECONDS
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    watchdog: WatchdogLimits = field(default_factory=WatchdogLimits)


class LoadFailures:
    """Counts how often in a row the same file could not be loaded. `file` is whatever tells one from another."""

    def __init__(self) -> None:
        self.count = 0
        self._file: object = None

    def note(self, file: object) -> float | None:
        """Count one; return how long to wait, None for as long as nothing changes."""
        self.count = self.count + 1 if file == self._file else 1
        self._file = file
        return None if self.count >= MAX_FAILED_LOADS else RETRY_SECONDS * self.count

    def clear(self) -> None:
        """Forget them: one was loaded."""
        self.count = 0


class Recovery:
    """Order: `started` for each engine that loaded; `hold` and `died_for_nobody` after a crash; perhaps `give_up`."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.blame = Blame(patience.blame_seconds)
        self.breaker = Breaker(patience.breaker)
        self._stranded: dict[str, Generation] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait for an engine."""
        return len(self._stranded)

    def refused_for(self, submit: Submit) -> float | None:
        """Return for how many seconds a request is refused because it kills the engine, None when it is welcome."""
        return self.blame.refused_for(submit, time.monotonic())

    def started(self, client: EngineClient) -> None:
        """Give a loaded engine to whoever waits for one."""
        self.breaker.loaded(time.monotonic())
        stranded, self._stranded = self._stranded, {}
        client.adopt(stranded.values())

    def died_for_nobody(self) -> float:
        """Count a death that no request is to blame for; return how many seconds to wait before the next start."""
        return self.breaker.crashed(time.monotonic())

    def hold(self, generations: Iterable[Generation]) -> None:
        """Keep requests for the next engine; their owners may still close them."""
        for generation in generations:
            generation.on_close = self._let_go
            self._stranded[generation.request_id] = generation

    def give_up(self, reason: str) -> None:
        """Tell everybody who waits that no engine comes."""
        stranded, self._stranded = self._stranded, {}
        for generation in stranded.values():
            generation.fail(EngineGoneError(f"not ready: {reason}", next_step="send it again later"))

    def _let_go(self, generation: Generation) -> None:
        self._stranded.pop(generation.request_id, None)
