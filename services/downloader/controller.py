"""The reconciler: each turn compares what is desired with what the store shows, and acts on the difference.

A turn comes at the start, every R3MES_RECONCILE_SECONDS, on an operator's word, when a transfer ends and on a verdict.
Order within one: trust → for each pin: view → decide (`reconcile`, pure) → act → status on the board. As a
rule one transfer runs at a time, in a thread of the runner; whatever it leaves behind, the next turn goes on from the
disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from services.downloader import control_rules as rules
from services.downloader.board import Board
from services.downloader.chain_watch import ChainWatch, chain_message
from services.downloader.controls import Controls
from services.downloader.desired import desired_pins, genesis_digests
from services.downloader.interrupt import Reason
from services.downloader.metrics import DownloaderMetrics
from services.downloader.observe import StoreView, counting_mismatches, measure_room, view_store
from services.downloader.reconcile import (
    Action,
    AskVerdict,
    EndRound,
    Fetch,
    History,
    Observation,
    Rest,
    Settle,
    next_action,
)
from services.downloader.runner import Runner
from services.downloader.settler import Settler
from services.downloader.status import Seen, compose
from services.downloader.transfer.space import missing_bytes
from services.downloader.transfers import Transfers
from services.downloader.unpinned import sweep_unpinned
from shared.genesis import ModelPin
from shared.states import FailureReason, ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.trust import Trust, TrustWatch

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5
_NO_GENERATION = ""


class Verdicts(Protocol):
    """Who asks the verifier, and knows what it told: the courier over Redis, or a desk in one process."""

    def ask(self, digest: str, generation: str) -> None:
        """Ask for a verdict on `digest`, soon."""

    def asked_ago(self, digest: str, generation: str) -> float | None:
        """Return how many seconds ago this generation's verdict was last asked for."""

    def heard_ago(self, digest: str) -> float | None:
        """Return how many seconds ago the verifier last told of progress."""

    def hashed_bytes(self, digest: str) -> int:
        """Return how many hashed bytes the verifier last told of."""

    def copies(self) -> dict[str, int]:
        """Return the bytes of the verifier's private copies, by digest."""


@dataclass(frozen=True, slots=True)
class Look:
    """One pin in one turn: what was seen, what was decided."""

    pin: ModelPin
    view: StoreView
    observation: Observation
    history: History
    action: Action


@dataclass(slots=True)
class Controller:
    """Runs turns in a thread of its own until `stop`; `obey` may be called from any other.

    `pins` says which models of what is accepted and staged it works on.
    """

    layout: StoreLayout
    watch: TrustWatch
    controls: Controls
    transfers: Transfers
    settler: Settler
    runner: Runner
    courier: Verdicts
    board: Board
    metrics: DownloaderMetrics
    chain: ChainWatch
    reconcile_seconds: float
    stop: threading.Event
    wake: threading.Event
    pins: Callable[[Trust], tuple[ModelPin, ...]] = desired_pins
    has_turned: bool = False
    _showing: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Turn until told to stop, then save what runs."""
        self._adopt_trust()
        while not self.stop.is_set():
            self.wake.clear()
            self.turn()
            self._wait()
        self.runner.stop()

    def obey(self, digest: str, verb: rules.Verb) -> ModelStatus | None:
        """Do what an operator asks; return the status, None when the digest is not pinned."""
        status = self.board.status(digest)
        if status is None or status.state is ModelState.VERIFIED:
            return status
        control = self.controls.update(digest, lambda before: rules.obey(before, verb, time.time()))
        log.info("operator's word", model=status.model_name, verb=verb)
        self.chain.ask_now()
        if control.wish != "run":
            self.runner.interrupt(digest, Reason.OPERATOR)
        self.show()
        self.wake.set()
        return self.board.status(digest)

    def turn(self) -> None:
        """Look at every pin, act, and show where it stands."""
        if self.watch.poll() is not None:
            self._adopt_trust()
        self.controls.flush()
        for pin in self.pins(self.watch.current):
            if not self.stop.is_set():
                self._act(self._look(pin))
        self._sweep()
        self.show()
        self.has_turned = True

    def _sweep(self) -> None:
        """Remove what no genesis pins any more, once nothing works on it."""
        pinned = {pin.sha256 for pin in desired_pins(self.watch.current)}
        sweep_unpinned(self.layout, self.settler.keeper, frozenset(pinned | self.runner.digests))
        self.settler.sweep(frozenset(pin.sha256 for pin in self.watch.current.genesis.models))

    def show(self) -> None:
        """Put every model's status on the board and into the metrics."""
        with self._showing:
            looks = [self._look(pin) for pin in self.pins(self.watch.current)]
            statuses = [self._status(look) for look in looks]
            self._tell(statuses)
            for look, status in zip(looks, statuses, strict=True):
                self.metrics.show(status, is_vetoed=look.observation.vetoed)
            self.metrics.running(sum(status.state is ModelState.DOWNLOADING for status in statuses))
            self.board.show(statuses)  # last: who is told of a state finds it in the metrics too

    def _wait(self) -> None:
        """Wait for the next turn; meanwhile keep the board fresh while something moves."""
        deadline = time.monotonic() + self.reconcile_seconds
        while not self.stop.is_set() and (left := deadline - time.monotonic()) > 0:
            verifying = self._in_state(ModelState.VERIFYING)
            is_moving = bool(verifying or self._in_state(ModelState.DOWNLOADING))
            if self.wake.wait(min(left, _TICK_SECONDS) if is_moving else left):
                return
            if is_moving:
                self.show()
            if not verifying <= self._in_state(ModelState.VERIFYING):
                return  # a verdict is on the disk, whether Redis told of it or not

    def _tell(self, statuses: list[ModelStatus]) -> None:
        """Log each change of state."""
        for status in statuses:
            before = self.board.status(status.sha256)
            if before is None or (before.state, before.reason) != (status.state, status.reason):
                log.info(
                    "model state",
                    model=status.model_name,
                    state=status.state,
                    reason=status.reason,
                    message=status.message,
                )

    def _in_state(self, state: ModelState) -> frozenset[str]:
        return frozenset(status.sha256 for status in self.board.statuses() if status.state is state)

    def _adopt_trust(self) -> None:
        trust = self.watch.current
        pins = self.pins(trust)
        self.metrics.common.set_genesis(trust.genesis.sha256)
        self.metrics.keep_only(pin.model_name for pin in pins)
        self.runner.interrupt_unless(frozenset(pin.sha256 for pin in pins), Reason.NOT_PINNED)
        log.info("genesis in use", sha256=trust.genesis.sha256, models=[pin.model_name for pin in pins])

    def _look(self, pin: ModelPin) -> Look:
        now = time.time()
        view = view_store(self.layout, pin)
        control = self.controls.read(pin.sha256)
        generation = view.data.generation if view.data else _NO_GENERATION
        running = self.runner.snapshot(pin.sha256)
        history = History(
            control=control,
            mismatches=counting_mismatches(view.rejected, genesis_digests(self.watch.current), control.forgiven_before),
            asked_ago=self.courier.asked_ago(pin.sha256, generation),
            heard_ago=self.courier.heard_ago(pin.sha256),
            turn_seconds=self.reconcile_seconds,
        )
        observation = Observation(
            verified_at=view.receipt.verified_at if view.receipt else None,
            unproven=view.unproven,
            data=view.data,
            missing_bytes=0 if self.runner.is_on(pin.sha256) else self._missing(pin, view),
            offered=self.transfers.offers.of(pin),
            ipfs_tries=self.transfers.offers.ipfs_tries,
            running=running.source if running else None,
            vetoed=self.chain.vetoes(pin),
            unheard=self.chain.is_pending,
        )
        return Look(pin, view, observation, history, next_action(observation, history, now))

    def _missing(self, pin: ModelPin, view: StoreView) -> int:
        room = measure_room(self.layout, pin.sha256, desired_pins(self.watch.current), self.courier.copies())
        size = view.data.size if view.data else self.transfers.known_size(pin)
        return missing_bytes(room, size, 0 if view.data else pin.required_bytes)

    def _act(self, look: Look) -> None:
        pin = look.pin
        match look.action:
            case Settle():
                pinned = self.watch.current.genesis.by_digest(pin.sha256) is not None
                self.settler.settle(pin, look.view, look.history, self.controls, links=pinned)
            case AskVerdict():
                generation = look.view.data.generation if look.view.data else _NO_GENERATION
                self.courier.ask(pin.sha256, generation)
            case EndRound(reason):
                control = self.controls.update(pin.sha256, lambda c: rules.after_round(c, reason, time.time()))
                log.warning("all sources failed", model=pin.model_name, reason=reason, message=control.message)
            case Fetch(source):
                if not self.runner.is_on(pin.sha256):
                    mismatches = sum(mismatch.source is source for mismatch in look.history.mismatches)
                    self.transfers.start(pin, source, self.watch.current, mismatches)
            case Rest(state=ModelState.VETOED):
                self.runner.interrupt(pin.sha256, Reason.VETOED)
            case Rest(reason=FailureReason.DISK_FULL):
                self.transfers.say_disk_full(pin, look.observation.missing_bytes)
            case _:
                pass

    def _status(self, look: Look) -> ModelStatus:
        pin, view = look.pin, look.view
        seen = Seen(
            data=view.data,
            running=self.runner.snapshot(pin.sha256),
            hashed_bytes=self.courier.hashed_bytes(pin.sha256),
            verified_size=view.receipt.size if view.receipt else None,
            verified_at=view.receipt.verified_at if view.receipt else None,
            verified_source=view.receipt.source if view.receipt else None,
            missing_bytes=look.observation.missing_bytes,
            message=chain_message(look.action, look.observation)
            or self.settler.notice(pin)
            or look.history.control.message,
        )
        return compose(pin, look.action, seen, time.time())
