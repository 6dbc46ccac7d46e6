"""The keeper of the served model: find → check → load → watch over it, and again whenever one of them ends.

Invariants: what is served was checked just before it was loaded, and its pinned name still leads to that inode; a model
that is not pinned any more is served only until its successor is ready; requests get in only by `admit`.
It runs in the event loop's thread, which also starts the engine, so that the engine dies with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import structlog

from services.miner.engine.backend import GpuGoneError
from services.miner.engine.client import Crash, EngineClient
from services.miner.engine.generation import EngineGoneError
from services.miner.leaving import Leaving
from services.miner.loading import load, no_room_for_both
from services.miner.metrics import MinerMetrics
from services.miner.model.check import CheckedModel, check_aside
from services.miner.model.find import choose, identity_by_name
from services.miner.model.probe import Machine, probe_machine
from services.miner.phases import Ending, Phase, Readiness
from services.miner.recovery import LoadFailures, Recovery
from services.miner.served import ServedModel
from services.miner.settings import MinerSettings
from services.miner.succession import Steps, Succession
from shared.errors import ConfigurationError, EngineError, IntegrityError, NotReadyError
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout
from shared.store.records import StatIdentity
from shared.store.trust import TrustWatch

WATCH_SECONDS = 0.25  # how long a quarantined file may be served at most, where no request notices it earlier
GPU_RETRY_SECONDS = 10.0  # for as long as it takes: it may come back, and the file is not to blame

_log = structlog.get_logger("miner.keeper")


class Keeper:
    """Owns the served model. `run` until cancelled; `drain` before the end."""

    def __init__(
        self, settings: MinerSettings, watch: TrustWatch, machine: Machine, metrics: MinerMetrics, recovery: Recovery
    ) -> None:
        self.recovery = recovery
        self.readiness = Readiness(Phase.WAITING, "starting")
        self.served: ServedModel | None = None
        self.unloaded: ServedModel | None = None  # what was served before it was unloaded, to be described alone
        self._entering = 0
        self._entered = asyncio.Event()  # set while no request is on its way in
        self._entered.set()
        self._leaving = Leaving(self._end, settings.drain_seconds)
        self._wanted = asyncio.Event()
        self._awake = asyncio.Event()
        self._settings = settings
        self._layout = StoreLayout(settings.store_root)
        self._watch = watch
        self._machine = machine
        self._metrics = metrics
        self._stop_check = threading.Event()
        self._succession = Succession(
            self._layout, Steps(self._check, self._no_room_for_both, self._load_beside, self._is_wanted, self._end)
        )
        self._failures = LoadFailures()
        self._crashed = False
        self._tried_file: tuple[str, StatIdentity | None] | None = None
        metrics.common.set_genesis(watch.current.genesis.sha256)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names that the accepted genesis pins."""
        return tuple(pin.model_name for pin in self._watch.current.genesis.models)

    @property
    def target(self) -> ModelPin | None:
        """The model that this miner should serve, None when the genesis has no such name any more."""
        try:
            return choose(self._watch.current.genesis, self._settings.model)
        except ConfigurationError:
            return None

    def still_true(self, served: CheckedModel | ServedModel) -> bool:
        """Tell whether the pinned name still leads to exactly what was checked and loaded."""
        return identity_by_name(self._layout, served.pin) == served.identity

    @contextlib.contextmanager
    def entering(self) -> Iterator[None]:
        """Let no model go while a request is on its way to it, from its first question to its submission."""
        self._entering += 1
        self._entered.clear()
        try:
            yield
        finally:
            self._entering -= 1
            if not self._entering:
                self._entered.set()

    async def wake(self) -> None:
        """Have the model loaded again that nobody had asked for; return once it is, or once it is known why not."""
        self._wanted.set()
        while self.readiness.asleep:
            await self._awake.wait()

    async def run(self) -> None:
        """Serve whatever the accepted genesis pins, until cancelled."""
        try:
            while True:
                await self._turn()
        finally:
            self._stop_check.set()
            self.recovery.give_up("the miner is stopping")
            await self._succession.close()
            await self._leaving.ended()
            if self.served is not None:
                await self._retire(self.served)

    def refuse_new_requests(self) -> None:
        """Begin to drain: not ready from now on."""
        self._set(Phase.DRAINING, "the miner is stopping")

    async def drained(self) -> None:
        """Wait until no request is open."""
        await self._leaving.answered()
        while True:
            client = None if self.served is None else self.served.client
            if client is not None:
                await client.idle.wait()
            if not self.recovery.waiting and (client is None or not client.stranded):
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _turn(self) -> None:
        self._poll_trust()
        file = self._file()
        if file != self._tried_file:
            self._tried_file = file
            self.recovery.breaker.reset()
        try:
            served = await self._next_loaded()
        except NotReadyError as error:
            self._halt(Phase.WAITING, error.message)
            await self._wait_for_change(file, WATCH_SECONDS)
        except (IntegrityError, ConfigurationError) as error:
            self._halt(Phase.FAILED, error.message)
            await self._wait_for_change(file, None)
        except EngineGoneError as error:
            await self._pause_after_crash(file, error.message)
        except GpuGoneError as error:
            self._halt(Phase.FAILED, error.message)
            await self._wait_for_change(file, GPU_RETRY_SECONDS)
        except EngineError as error:
            seconds = self._failures.note(file)
            gave_up = f"gave up after {self._failures.count} failed loads: " if seconds is None else ""
            self._halt(Phase.FAILED, f"{gave_up}{error.message}")
            await self._wait_for_change(file, seconds)
        else:
            self._failures.clear()
            await self._serve(served)

    async def _next_loaded(self) -> ServedModel:
        if self._succession.under_way:  # the one before was lost while its successor was on its way
            self._set(Phase.LOADING, "another model was accepted and is on its way")
        if await self._succession.outcome(wait=True) is Ending.OVERTAKEN:
            self._crashed = False  # this engine was not started because one had died
            return self._succession.take_loaded()
        with contextlib.closing(await self._next_checked()) as checked:
            return await self._load(checked)

    async def _next_checked(self) -> CheckedModel:
        if (successor := self._succession.take_checked()) is not None:
            if successor.pin == self.target and identity_by_name(self._layout, successor.pin) == successor.identity:
                return successor
            successor.close()
        pin = choose(self._watch.current.genesis, self._settings.model)
        if identity_by_name(self._layout, pin) is None:
            raise NotReadyError(f"{pin.model_name} is not verified yet")
        self._set(Phase.CHECKING, f"checking {pin.file_name}")
        return await self._check(pin)

    async def _check(self, pin: ModelPin) -> CheckedModel:
        started = time.monotonic()
        checked = await check_aside(self._layout, pin, self._settings.rehash, self._stop_check)
        _log.info(
            "checked", model=pin.model_name, rehashed=checked.rehashed, seconds=round(time.monotonic() - started, 3)
        )
        return checked

    async def _load(self, checked: CheckedModel) -> ServedModel:
        self._set(Phase.LOADING, f"loading {checked.pin.file_name}")
        if self._crashed:
            self._crashed = False
            self._metrics.restarted()
        served = await self._load_beside(checked)
        if not self.still_true(served):
            await self._retire(served)
            raise NotReadyError(f"{checked.pin.file_name} changed while it was loaded")
        return served

    async def _serve(self, served: ServedModel) -> None:
        """Serve a model, and whatever overtakes it."""
        while True:
            self.served = served
            self._metrics.serves(served)
            self.recovery.started(served.client)
            self._set(Phase.READY, "")
            ending = await self._watch_over(served)
            served = self.served  # a new name for its users may have come
            _log.info("no longer served", model=served.name, why=ending)
            if ending is not Ending.OVERTAKEN:
                break
            self._leaving.let(served, self._entered)
            served = self._succession.take_loaded()
        await self._give_up(served, ending)

    async def _give_up(self, served: ServedModel, ending: Ending) -> None:
        if ending in (Ending.SUCCEEDED, Ending.UNPINNED):
            self._set(Phase.SWAPPING, "another model was accepted")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_seconds):
                    await served.client.idle.wait()
        elif ending is Ending.IDLE:
            self._fall_asleep(served)
        elif ending is Ending.CHANGED:
            self._set(Phase.WAITING, f"{served.pin.file_name} is gone or was replaced")
        else:
            if self._is_wanted(served):  # otherwise the next engine has another model, which knows other tokens
                self.recovery.hold(served.client.take_stranded())
            self._set(Phase.LOADING, "the engine died and is started again")
        await self._retire(served)
        if served.client.crash is not None:
            await self._recover(served, served.client.crash)
        elif ending is Ending.IDLE:
            await self._sleep((served.pin.sha256, served.identity))

    def _fall_asleep(self, served: ServedModel) -> None:
        self._wanted.clear()
        self._awake.clear()
        self.unloaded = served
        self._set(Phase.UNLOADED, "nobody asked for a while; the next request has it loaded again", asleep=True)

    async def _sleep(self, file: tuple[str, StatIdentity | None]) -> None:
        """Hold no model until a request comes, or another file or genesis."""
        while not (self._wanted.is_set() or self._poll_trust() or self._file() != file):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._wanted.wait()

    async def _recover(self, served: ServedModel, crash: Crash) -> None:
        _log.error(crash.describe(), requests=crash.requests, blamed=crash.blamed, stranded=self.recovery.waiting)
        if crash.for_nobody:
            await self._pause_after_crash((served.pin.sha256, served.identity), crash.describe())
        else:
            self._crashed = True

    async def _pause_after_crash(self, file: tuple[str, StatIdentity | None], reason: str) -> None:
        """After a death for no request, wait as long as the breaker says or until something changes."""
        self._crashed = True
        seconds = self.recovery.died_for_nobody()
        breaker = self.recovery.breaker
        if breaker.open:
            self._halt(
                Phase.FAILED,
                f"gave up for {seconds:g} s after {breaker.crashes} crashes with no request to blame: {reason}",
            )
        else:
            self._set(Phase.FAILED, reason)
        if await self._wait_for_change(file, seconds):
            breaker.reset()

    async def _retire(self, served: ServedModel) -> None:
        """End the engine of the model that was served; whoever still waits for it gets an error."""
        self.served = None
        self._metrics.serves(None)
        await self._end(served)

    async def _end(self, served: ServedModel) -> None:
        await served.client.stop()
        for generation in served.client.take_stranded():
            generation.fail(EngineGoneError("the model is not served any more", next_step="send it again"))
        served.vocabulary.close()

    async def _watch_over(self, served: ServedModel) -> Ending:
        while True:
            if served.client.gone.is_set():
                return Ending.CRASHED
            if not self.still_true(served):
                return Ending.CHANGED
            served = self._follow_trust(served)
            target = self.target
            if target is None:
                return Ending.UNPINNED
            if ending := await self._succession.outcome():
                return ending
            if target.sha256 != served.pin.sha256:
                self._succession.begin(target, served)
            if self._is_forgotten(served.client) and not self._succession.under_way:
                return Ending.IDLE
            await self._pause(served.client)

    def _is_forgotten(self, client: EngineClient) -> bool:
        seconds = self._settings.idle_unload_seconds
        if seconds is None or self._entering or not client.idle.is_set():
            return False
        return time.monotonic() - client.idle_since >= seconds

    def _follow_trust(self, served: ServedModel) -> ServedModel:
        """Take note of a newly accepted genesis; the same file may have another name for its users."""
        self._poll_trust()
        target = self.target
        if target is not None and target.sha256 == served.pin.sha256 and target.model_name != served.name:
            served = replace(served, pin=replace(served.pin, model_name=target.model_name))
            self.served = served
            self._metrics.serves(served)
        return served

    def _no_room_for_both(self, successor: CheckedModel, served: ServedModel) -> str:
        return no_room_for_both(successor, served, self._settings, self._machine, probe_machine())

    async def _load_beside(self, checked: CheckedModel) -> ServedModel:
        return await load(checked, self._settings, self._machine, self._metrics, self.recovery)

    def _is_wanted(self, model: CheckedModel | ServedModel) -> bool:
        self._poll_trust()
        target = self.target
        return target is not None and target.sha256 == model.pin.sha256 and self.still_true(model)

    def _file(self) -> tuple[str, StatIdentity | None]:
        pin = self.target
        return ("", None) if pin is None else (pin.sha256, identity_by_name(self._layout, pin))

    async def _wait_for_change(self, file: tuple[str, StatIdentity | None], seconds: float | None) -> bool:
        """Wait; return whether another file or genesis came."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._poll_trust() or self._file() != file:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _poll_trust(self) -> bool:
        trust = self._watch.poll()
        if trust is None:
            return False
        self._metrics.common.set_genesis(trust.genesis.sha256)
        _log.info("a newly accepted genesis", sha256=trust.genesis.sha256, models=self.model_names)
        return True

    async def _pause(self, client: EngineClient) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                await client.gone.wait()

    def _halt(self, phase: Phase, reason: str) -> None:
        """Not ready, and nobody knows until when: whoever waits for an engine gets an error."""
        self._set(phase, reason)
        self.recovery.give_up(reason)

    def _set(self, phase: Phase, reason: str, *, asleep: bool = False) -> None:
        if self.readiness.phase is Phase.DRAINING:
            return
        # It stays asleep while it is checked and loaded: who asks now waits, and is not refused.
        asleep = asleep or (self.readiness.asleep and phase in (Phase.CHECKING, Phase.LOADING))
        readiness = Readiness(phase, reason, asleep)
        if self.readiness != readiness:
            _log.info("readiness", phase=phase, reason=reason)
        self.readiness = readiness
        if not asleep:
            self.unloaded = None
            self._awake.set()
