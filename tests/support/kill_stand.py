"""One host on which anything is killed at any time: Redis, downloader, verifier; an origin, models that come and go.

Order of calls: `open` → `kill_at_random(budget)` → `settle`. After each kill the service is started again at once, and
the time is taken until it is seen at work: the downloader has made bytes durable (or has nothing to fetch), the
verifier has given a verdict, a question has gone through Redis and a verdict has come. Others are killed meanwhile.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.store.layout import StoreLayout
from shared.store.records import Journal, Lease
from tests.support.kill_models import Models, occupied_bytes
from tests.support.kill_moments import Moment, is_journal_replaced, moments_of
from tests.support.log_tail import LogTail
from tests.support.model_supply import MIB, SEND_BUFFER, WEIGHTS, ModelSupply
from tests.support.origin_server import ScriptedOrigin
from tests.support.redis_server import RedisServer
from tests.support.service_answers import answers_ping, is_ready
from tests.support.service_nursery import Nursery, Process
from tests.support.store_watch import StoreWatch

BACK_TO_WORK_SECONDS = 60.0
SETTLE_SECONDS = 180.0  # for bytes that are still to come, at the origin's pace
DOWNLOADER, VERIFIER, REDIS = "downloader", "verifier", "redis"
NAMES = (DOWNLOADER, VERIFIER, REDIS)
_VERDICTS = ("verified", "wrong bytes, deleted")
_ENQUEUED = "verification enqueued"
_TICK_SECONDS = 0.03
_RENEW_SECONDS = 0.4
_CHOSEN_SECONDS = 2.0  # how long a chosen moment is waited for
_MOST_PENDING = 3  # kills of one service that was not seen at work in between


class StandError(AssertionError):
    """Something that is promised did not happen."""


@dataclass(frozen=True)
class Plan:
    """What a stand is like. `cap_bytes`: of all pinned models together; `root`: where the store is."""

    name: str
    root: Path
    seed: int
    slots: int = 12
    cap_bytes: int = 200 * MIB
    weights: Sequence[int] = WEIGHTS
    bytes_per_second: float = 24e6
    reconcile_seconds: float = 2.0


@dataclass
class Kill:
    """One SIGKILL. `seconds` until the service was seen at work again; `is_early`: it had not been since its start."""

    service: str
    moments: frozenset[Moment]
    is_early: bool
    together: int
    at: float = field(default_factory=time.monotonic)
    seconds: float | None = None


class Budget:
    """How many kills are left, for all stands together."""

    def __init__(self, kills: int) -> None:
        self._left = kills
        self._lock = threading.Lock()

    def take(self, wanted: int) -> int:
        """Take up to so many; return how many."""
        with self._lock:
            taken = min(wanted, self._left)
            self._left -= taken
            return taken

    def cancel(self) -> None:
        """Leave none: a stand has failed."""
        with self._lock:
            self._left = 0


@dataclass
class Service:
    """One of the three, and the kills after which it has not been seen at work yet."""

    name: str
    log: LogTail
    process: Process | None = None
    is_ready: bool = False
    pending: list[Kill] = field(default_factory=list)
    enqueued_before: int = 0  # of Redis: what had been said before its last start
    judged_before: int | None = None


class Stand:
    """See the module."""

    def __init__(self, plan: Plan, home: Path, nursery: Nursery) -> None:
        self.plan = plan
        self.home = home
        self.layout = StoreLayout(plan.root)
        self.watch = StoreWatch(plan.root)
        self.kills: list[Kill] = []
        self.models: Models
        self.peak_bytes = 0
        self._nursery = nursery
        self._chance = random.Random(plan.seed)  # noqa: S311 - draws models and moments, protects nothing
        self._services = {name: Service(name, LogTail(home / f"{name}.log")) for name in NAMES}
        self._redis = RedisServer(home / "redis", append_only=True)
        self._environ: dict[str, str] = {}
        self._renew_at = 0.0
        self._never = threading.Event()

    # --- life ---

    @contextmanager
    def open(self) -> Iterator[Stand]:
        """Start everything; what is left at the end is killed."""
        with ExitStack() as places:
            origin = places.enter_context(ScriptedOrigin(send_buffer=SEND_BUFFER))
            places.enter_context(self._redis)
            self._environ = self._environment(origin)
            supply = ModelSupply(origin, self._chance, self.plan.bytes_per_second, self.plan.weights)
            self.models = Models(self.layout, self.watch, supply, self._chance)
            self.models.accept(self.plan.slots, self.plan.cap_bytes)
            self.watch.start()
            places.callback(self.watch.stop)
            places.callback(self._kill_all)
            for name in (DOWNLOADER, VERIFIER):
                self._start(name)
            yield self

    def _environment(self, origin: ScriptedOrigin) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "R3MES_MODELS_DIR": str(self.layout.root),
            "R3MES_GENESIS": str(self.home / "no-operator-file.json"),
            "R3MES_LISTEN": "127.0.0.1:0",
            "R3MES_REDIS_URL": self._redis.url,
            "R3MES_RECONCILE_SECONDS": str(self.plan.reconcile_seconds),
            "HF_ENDPOINT": origin.url,
        }

    def _kill_all(self) -> None:
        for service in self._services.values():
            if service.process is not None:
                service.process.send(signal.SIGKILL)
                service.process.wait(10)

    def _start(self, name: str) -> None:
        service = self._services[name]
        service.is_ready = False
        if name == REDIS:
            self._redis.start()
            service.enqueued_before = self._total(_ENQUEUED)
            service.judged_before = None
            return
        service.log.mark()
        service.process = self._nursery.start(name, self._environ, service.log.file)

    # --- killing ---

    def kill_at_random(self, budget: Budget) -> None:
        """Kill until the budget is spent; returns when all that was killed has been seen at work again."""
        while True:
            names = self._draw_targets()
            self._wait_for_a_moment()
            names = names[: budget.take(len(names))]
            if not names:
                break
            self._kill(names)
        self._attend(lambda: not any(service.pending for service in self._services.values()), or_else="back at work")

    def _draw_targets(self) -> list[str]:
        """One that was seen at work since its last kill; now and then one that was not, and two or three at once."""
        if self._chance.random() < 0.15:
            name = self._chance.choice(NAMES)
            if len(self._services[name].pending) < _MOST_PENDING:
                return [name]
        settled: list[str] = []

        def is_one_settled() -> bool:
            settled[:] = [name for name in NAMES if not self._services[name].pending]
            return bool(settled)

        self._attend(is_one_settled, or_else="one back at work")
        self._chance.shuffle(settled)
        return settled[: self._chance.choices((1, 2, 3), (70, 22, 8))[0]]

    def _wait_for_a_moment(self) -> None:
        """Wait for a random time, or for something that is over in an instant and a little longer."""
        chosen: dict[str, Callable[[], bool]] = {
            "complete": lambda: Moment.VERIFYING in self._moments(),
            "promoting": lambda: Moment.PROMOTING in self._moments(),
            "journal": lambda: is_journal_replaced(self.layout, self.models.digests),
        }
        kind = self._chance.choices(("any", *chosen), (5, 3, 4, 1))[0]
        until = time.monotonic() + self._chance.uniform(0, 0.4)
        if kind == "any":
            self._attend(lambda: time.monotonic() >= until)
            return
        self._attend(chosen[kind], seconds=_CHOSEN_SECONDS, pause=0.002)
        if kind == "complete":
            self._never.wait(self._chance.uniform(0, 0.02))

    def _kill(self, names: list[str]) -> None:
        moments = self._moments()
        for name in names:
            service = self._services[name]
            kill = Kill(name, moments, is_early=bool(service.pending), together=len(names))
            if service.process is None:
                self._redis.kill()
            else:
                service.process.send(signal.SIGKILL)
            service.pending.append(kill)
            self.kills.append(kill)
        for name in names:
            process = self._services[name].process
            if process is not None and not process.wait(30):
                raise StandError(f"{name} outlives a SIGKILL")
        for name in names:
            self._start(name)

    def _moments(self) -> frozenset[Moment]:
        return moments_of(self.layout, self.models.digests)

    # --- meanwhile ---

    def _attend(
        self,
        is_over: Callable[[], bool],
        *,
        seconds: float = SETTLE_SECONDS,
        or_else: str = "",
        pause: float = _TICK_SECONDS,
        renews: bool = True,
    ) -> None:
        """Look after everything until `is_over`, or for so many seconds; with `or_else` it has to be over by then."""
        deadline, due = time.monotonic() + seconds, 0.0
        while not is_over():
            now = time.monotonic()
            if now >= deadline:
                if or_else:
                    raise StandError(f"not within {seconds:g} s: {or_else}\n{self.state()}")
                return
            if now >= due:
                due = now + _TICK_SECONDS
                self._tend(renews=renews)
            self._never.wait(pause)

    def _tend(self, *, renews: bool = True) -> None:
        for service in self._services.values():
            service.log.read()
            if service.process is not None and not service.process.is_alive():
                raise StandError(f"the {service.name} ended by itself\n{service.log.tail()}")
            self._note_recovery(service)
        if self.watch.violations:
            raise StandError("\n".join([*self.watch.violations, self.state()]))
        if time.monotonic() >= self._renew_at:
            self._renew_at = time.monotonic() + _RENEW_SECONDS
            self.peak_bytes = max(self.peak_bytes, occupied_bytes(self.layout.root))
            if renews:
                self.models.renew()

    def _note_recovery(self, service: Service) -> None:
        if service.pending and self._is_at_work(service):
            for kill in service.pending:
                kill.seconds = time.monotonic() - kill.at
            service.pending.clear()
        for kill in service.pending:
            if time.monotonic() - kill.at > BACK_TO_WORK_SECONDS:
                raise StandError(f"not back to work within {BACK_TO_WORK_SECONDS:g} s: {kill}\n{self.state()}")

    def _is_at_work(self, service: Service) -> bool:
        if service.name == DOWNLOADER:
            return self._answers(service) and self._has_fetched(service)
        if service.name == VERIFIER:
            return self._answers(service) and any(service.log.counts[verdict] for verdict in _VERDICTS)
        return self._redis_is_at_work(service)

    def _answers(self, service: Service) -> bool:
        started = service.log.last.get(f"{service.name} started")
        if started is not None and not service.is_ready:
            service.is_ready = is_ready(started["port"])
        return service.is_ready

    def _has_fetched(self, service: Service) -> bool:
        """Tell whether this very process made something durable, or found nothing to fetch."""
        if service.log.counts["all bytes are here"]:
            return True
        is_something_left = False
        for digest in self.models.digests:
            journal, lease = Journal.read(self.layout.journal(digest)), Lease.read(self.layout.lease(digest))
            is_mine = lease is not None and service.process is not None and lease.pid == service.process.pid
            if is_mine and journal is not None and lease is not None and journal.instance == lease.instance:
                return True
            is_something_left |= not (self.watch.is_verified(digest) or (journal is not None and journal.complete))
        return not is_something_left

    def _redis_is_at_work(self, service: Service) -> bool:
        """Tell whether a question was enqueued since its start, and a verdict came since that."""
        if service.judged_before is None:
            if not answers_ping(self._redis.url) or self._total(_ENQUEUED) == service.enqueued_before:
                return False
            service.judged_before = self._verdicts()
        others = (self._services[name] for name in (DOWNLOADER, VERIFIER))
        return self._verdicts() > service.judged_before and all(self._answers(other) for other in others)

    def _total(self, event: str) -> int:
        return sum(service.log.totals[event] for service in self._services.values())

    def _verdicts(self) -> int:
        return sum(self._total(verdict) for verdict in _VERDICTS)

    # --- the end ---

    def settle(self) -> None:
        """Let everything run undisturbed until all is verified; start both anew, and look at what is left."""
        self._attend(self.models.are_all_verified, or_else="every model verified", renews=False)
        self._stop_in_order()
        self.models.remove_what_left()  # what was promoted after its genesis had gone
        for name in (DOWNLOADER, VERIFIER):
            self._start(name)

        def is_tidy() -> bool:
            return all(self._answers(self._services[name]) for name in (DOWNLOADER, VERIFIER)) and not self._left()

        self._attend(is_tidy, seconds=90, or_else="nothing left over", renews=False)
        self._stop_in_order()
        self.watch.look()
        if wrong := [*self.watch.violations, *self.models.wrong_records()]:
            raise StandError("\n".join(wrong))

    def _left(self) -> list[str]:
        """Return what should not be there, more bytes than the verified models' included."""
        try:
            left = self.models.leftovers()
        except FileNotFoundError as error:
            return [f"something that went just now: {error.filename}"]
        size = sum(model.size for model in self.models.pinned)
        occupied = occupied_bytes(self.layout.root)
        return [*left, f"{occupied} bytes for {size}"] if occupied > size + MIB else left

    def _stop_in_order(self) -> None:
        for name in (DOWNLOADER, VERIFIER):
            process = self._services[name].process
            if process is not None:
                process.send(signal.SIGTERM)
                if not process.wait(20):
                    raise StandError(f"the {name} does not end\n{self.state()}")

    def state(self) -> str:
        """Say how things stand, for a person."""
        lines = [f"{self.plan.name}: {len(self.kills)} kills, {sorted(self._moments())}, left: {self._left()}"]
        for model in self.models.pinned:
            journal = Journal.read(self.layout.journal(model.digest))
            told = f"complete={journal.complete} prefix={journal.prefix}" if journal else "no journal"
            lines.append(f"{model} {model.size} {told} verified={self.watch.is_verified(model.digest)}")
        lines += [f"--- {service.name}\n{service.log.tail()}" for service in self._services.values()]
        return "\n".join(lines)
