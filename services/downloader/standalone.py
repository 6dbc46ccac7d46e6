"""The downloader in this process, for one model: the service's own controller, without Redis and without an API.

`download` is a turn of the controller several times a second, in its caller's thread: same sources, same rules, same
journal, lease and `control.json`. Whoever judges the bytes is given by the caller, who alone knows a verifier.
Order: the lease shows that nobody else is at work → the operator's word `download` → turns, until the model is verified
and linked. What came is kept however it ends. `tell` writes an operator's word where no downloader runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from services.downloader.assembly import build_controller
from services.downloader.board import Board
from services.downloader.control_rules import Verb
from services.downloader.controller import Controller
from services.downloader.desired import desired_pins
from services.downloader.interrupt import InterruptedTransferError, Reason
from services.downloader.limits import DEFAULT_LIMITS, Limits, limits_for
from services.downloader.settings import load_downloader_settings
from services.downloader.transfer.incoming import prepare_directory
from services.downloader.transfer.lease import LeaseKeeper
from shared.errors import NotReadyError, R3mesError
from shared.genesis import ModelPin
from shared.states import ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.records import Lease
from shared.store.trust import TrustWatch

TURN_SECONDS = 0.25
_LEASE_LOOK_SECONDS = 0.5


class Judge(Protocol):
    """Who judges complete bytes of one model, and may follow them while they come. Bytes."""

    @property
    def hashed_bytes(self) -> int:
        """How many bytes of the present generation are hashed."""

    @property
    def copy_bytes(self) -> int:
        """What a private copy without a name occupies."""

    def judge(self) -> None:
        """Judge what is complete; the store tells how that ended. Raises R3mesError when there is no verdict."""

    def stop(self) -> None:
        """End a judgement early."""


class WriterAliveError(NotReadyError):
    """Another process fetches this model: `lease` is its."""

    def __init__(self, pin: ModelPin, lease: Lease) -> None:
        super().__init__(
            f"process {lease.pid} on {lease.host} is fetching {pin.model_name} already",
            next_step="wait for it, or end it there (what it fetched is kept), then run the same command again",
        )
        self.lease = lease


def download(
    layout: StoreLayout,
    pin: ModelPin,
    judge: Judge,
    stop: threading.Event,
    *,
    environ: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[ModelStatus]:
    """Fetch one pinned model and have it judged; yield its status at every turn until it is verified, or `stop` is set.

    Raises WriterAliveError, NotReadyError when it is not pinned any more, what `judge` raises, and
    ConfigurationError for the downloader's settings; OSError of the store's directories.
    """
    here = _Here(layout, pin, judge, stop)
    controller = here.controller = _controller(layout, pin, here, environ, limits)
    controller.show()
    yield here.status()
    if here.status().state is not ModelState.VERIFIED:
        with writing(layout, controller.settler.keeper, pin, stop):
            controller.obey(pin.sha256, Verb.DOWNLOAD)
        controller.chain.start(controller.wake.set, here.crashed)
    try:
        yield from here.turns()
    finally:
        here.ended.set()
        controller.runner.stop()
        here.desk.end()


def tell(layout: StoreLayout, pin: ModelPin, verb: Verb, stop: threading.Event) -> ModelStatus:
    """Write an operator's word into the store and return the model's status; nothing is changed of a verified one.

    Raises WriterAliveError when another process fetches the model, ConfigurationError, OSError.
    """
    here = _Here(layout, pin, _Nobody(), stop)
    controller = here.controller = _controller(layout, pin, here, None, DEFAULT_LIMITS)
    controller.show()
    if here.status().state is not ModelState.VERIFIED:
        with writing(layout, controller.settler.keeper, pin, stop):
            controller.obey(pin.sha256, verb)
    return here.status()


@contextmanager
def writing(layout: StoreLayout, keeper: LeaseKeeper, pin: ModelPin, stop: threading.Event) -> Iterator[None]:
    """Hold the lease of a model's incoming directory; a lease that nobody renews is waited for until it has expired.

    Raises WriterAliveError when another process renews it, InterruptedTransferError once `stop` is set, OSError.
    """
    prepare_directory(layout, pin.sha256)
    path = layout.lease(pin.sha256)
    watch = _OtherWriter(layout, keeper, pin)
    while (mine := keeper.acquire(path)) is None:
        watch.look()
        if stop.wait(_LEASE_LOOK_SECONDS):
            raise InterruptedTransferError(Reason.OPERATOR)
    try:
        yield
    finally:
        keeper.release(path, mine)


class _OtherWriter:
    """Sees whether somebody else renews the lease of a model."""

    def __init__(self, layout: StoreLayout, keeper: LeaseKeeper, pin: ModelPin) -> None:
        self._path = layout.lease(pin.sha256)
        self._keeper = keeper
        self._pin = pin
        self._seen: Lease | None = None

    def look(self) -> None:
        """Raise WriterAliveError when the lease is another's and changed since it was looked at."""
        lease = Lease.read(self._path)
        if lease is None or lease.instance == self._keeper.identity.instance:
            self._seen = None
            return
        if self._seen is not None and self._seen != lease:
            raise WriterAliveError(self._pin, lease)
        self._seen = lease


@dataclass(slots=True)
class _Desk:
    """Has the bytes judged, in a thread of its own, one judgement at a time."""

    digest: str
    judge: Judge
    _thread: threading.Thread | None = None
    _error: R3mesError | None = None
    _crash: BaseException | None = None

    def ask(self, digest: str, generation: str) -> None:  # noqa: ARG002 - the store says which generation it is
        if not self._is_busy():
            self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
            self._thread.start()

    def asked_ago(self, digest: str, generation: str) -> float | None:  # noqa: ARG002
        return 0.0 if self._is_busy() else None

    def heard_ago(self, digest: str) -> float | None:  # noqa: ARG002
        return None

    def hashed_bytes(self, digest: str) -> int:  # noqa: ARG002
        return self.judge.hashed_bytes

    def copies(self) -> dict[str, int]:
        return {self.digest: self.judge.copy_bytes}

    def check(self) -> None:
        """Raise what the last judgement raised."""
        if error := self._error or self._crash:
            raise error

    def end(self) -> None:
        """Stop what is being judged and wait for that."""
        self.judge.stop()
        if self._thread is not None:
            self._thread.join()

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.judge.judge()
        except R3mesError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - the outermost of this thread: its owner raises it
            self._crash = error


class _Nobody:
    """Judges nothing: only a word is written."""

    hashed_bytes = 0
    copy_bytes = 0

    def judge(self) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass(slots=True)
class _Here:
    """One model, its controller, and who judges it."""

    layout: StoreLayout
    pin: ModelPin
    judge: Judge
    stop: threading.Event
    controller: Controller = field(init=False)
    desk: _Desk = field(init=False)
    board: Board = field(default_factory=Board)
    ended: threading.Event = field(default_factory=threading.Event)
    _crash: BaseException | None = None

    def __post_init__(self) -> None:
        self.desk = _Desk(self.pin.sha256, self.judge)

    def crashed(self, error: BaseException) -> None:
        """Remember what ended a thread; the next turn raises it."""
        self._crash = error

    def status(self) -> ModelStatus:
        """Return what is shown; raises NotReadyError when the model left the genesis."""
        status = self.board.status(self.pin.sha256)
        if status is None:
            raise NotReadyError(f"{self.pin.model_name} is not pinned any more", next_step="r3mes genesis show")
        return status

    def turns(self) -> Iterator[ModelStatus]:
        """Take turns until the model is verified and what is left to do for it is done."""
        controller = self.controller
        others = _OtherWriter(self.layout, controller.settler.keeper, self.pin)
        while not self.stop.is_set():
            controller.wake.clear()
            controller.turn()
            self.desk.check()
            if self._crash is not None:
                raise self._crash
            if self.status().state is ModelState.VERIFIED:
                self._settle()
                yield self.status()
                return
            others.look()
            yield self.status()
            controller.wake.wait(TURN_SECONDS)

    def _settle(self) -> None:
        """Let a whole turn see that it is verified: it makes the link, and looks at what stands in its place."""
        self.controller.turn()
        while self.controller.runner.is_on(self.pin.sha256) and not self.stop.wait(TURN_SECONDS):
            pass
        self.controller.turn()


def _controller(
    layout: StoreLayout,
    pin: ModelPin,
    here: _Here,
    environ: Mapping[str, str] | None,
    limits: Limits,
) -> Controller:
    settings = load_downloader_settings()
    return build_controller(
        settings,
        os.environ if environ is None else environ,
        layout,
        TrustWatch(layout),
        here.ended,
        here.crashed,
        board=here.board,
        courier=here.desk,
        pins=lambda trust: tuple(each for each in desired_pins(trust) if each.sha256 == pin.sha256),
        limits=limits_for(limits, settings.connections, settings.max_bytes_per_second),
    )
