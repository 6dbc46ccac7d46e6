"""Fetching models: a running stack is asked and watched, or the services' own code works in this process.

Either way a model is a row of statuses, which one `ModelView` shows and one `Endings` judges. Order for each model: the
word `download` → statuses → verified, or the error that ends the waiting. An interrupt ends the watching; a stack goes
on then, and in this process what came is kept for the next time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from launcher.display import Display
from launcher.endings import Endings
from launcher.importing import free_bytes
from launcher.interrupts import StoppedError
from launcher.model_names import choose
from launcher.model_view import ModelView
from launcher.stack import Stack
from launcher.store_errors import store_errors
from services.downloader import run_once as downloading
from services.verifier import run_once as verifying
from shared.errors import DiskFullError, NotReadyError, R3mesError
from shared.genesis import ModelPin
from shared.states import ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.trust import read_trust

_TRIES = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model to fetch; `pin` is what this host accepted, None where a stack knows it."""

    model_name: str
    sha256: str
    pin: ModelPin | None = None


class Way(Protocol):
    """How models are fetched: `place` is where the answers come from, `stopped` what a person is told after Ctrl-C."""

    place: str
    stopped: str
    somebody: str

    def choose(self, wanted: Sequence[str]) -> tuple[Wanted, ...]:
        """Return the models that are meant; raises UsageError."""

    def statuses(self, model: Wanted, stop: threading.Event) -> Generator[ModelStatus, None, None]:
        """Fetch a model; yield its status now, and while it changes, several times a second. Raises R3mesError."""

    def path(self, model: Wanted, status: ModelStatus) -> Path | None:
        """Return where a verified model is, None where only the stack knows."""


@dataclass(slots=True)
class Pulled:
    """How one model ended: its last status, and whether it was verified before."""

    status: ModelStatus | None = None
    was_there: bool = False
    seconds: float = 0.0
    error: R3mesError | None = None


def pull(way: Way, model: Wanted, display: Display, stop: threading.Event, *, waits: bool) -> Pulled:
    """Fetch one model and show how; what went wrong is in `error`. Raises StoppedError when `stop` is set first."""
    pulled, began_at = Pulled(), time.monotonic()
    view, endings = ModelView(display), Endings(waits, way.somebody)
    try:
        with closing(way.statuses(model, stop)) as statuses:
            _follow(statuses, view, endings, pulled)
    except R3mesError as error:
        pulled.error = error
    is_verified = pulled.status is not None and pulled.status.state is ModelState.VERIFIED
    if stop.is_set() and not is_verified:
        raise StoppedError
    pulled.seconds = time.monotonic() - began_at
    if pulled.error is None and not is_verified:
        pulled.error = NotReadyError(f"{model.model_name} did not come", next_step="r3mes status")
    return pulled


def _follow(statuses: Iterable[ModelStatus], view: ModelView, endings: Endings, pulled: Pulled) -> None:
    """Show statuses until one is an end."""
    for status in statuses:
        view.show(status)
        is_verified = status.state is ModelState.VERIFIED
        pulled.was_there = is_verified and pulled.status is None
        is_first, pulled.status = pulled.status is None, status
        if is_verified:
            return
        # The first one tells what was before the word `download`.
        if not is_first and (error := endings.of(status, time.monotonic())):
            pulled.error = error
            return


class ByStack:
    """Asks a running stack."""

    somebody = "the stack"
    stopped = "stopped watching: the stack goes on; `r3mes pull` watches it again, `r3mes pause` stops it"

    def __init__(self, stack: Stack, display: Display) -> None:
        self.place = stack.url
        self._stack = stack
        self._display = display

    def choose(self, wanted: Sequence[str]) -> tuple[Wanted, ...]:
        """Return the models that are meant, of those that the stack pins."""
        return tuple(Wanted(each.model_name, each.sha256) for each in choose(wanted, self._stack.models()))

    def statuses(self, model: Wanted, stop: threading.Event) -> Generator[ModelStatus, None, None]:
        """Ask for the download, say what was there before, follow it."""
        before = next((each for each in self._stack.models() if each.sha256 == model.sha256), None)
        is_verified = before is not None and before.state is ModelState.VERIFIED
        if not is_verified:
            self._stack.tell(model.sha256, downloading.Verb.DOWNLOAD)
        if before is not None:
            yield before
        if not is_verified:
            yield from self._stack.statuses(model.sha256, stop, self._display)

    def path(self, model: Wanted, status: ModelStatus) -> Path | None:  # noqa: ARG002 - for those who have one
        """Return None: the stack's store may be anywhere."""
        return None


class Here:
    """Works in this process, over the store of this host."""

    somebody = ""
    stopped = "stopped: what came is kept, and the same command goes on from it"

    def __init__(self, layout: StoreLayout) -> None:
        self.place = str(layout.root)
        self._layout = layout

    def choose(self, wanted: Sequence[str]) -> tuple[Wanted, ...]:
        """Return the models that are meant, of the accepted genesis and the staged one."""
        return tuple(Wanted(pin.model_name, pin.sha256, pin) for pin in choose(wanted, pins_of(self._layout)))

    def statuses(self, model: Wanted, stop: threading.Event) -> Generator[ModelStatus, None, None]:
        """Download with the downloader's code; the verifier's follows, and judges at the end."""
        assert model.pin is not None  # noqa: S101 - `choose` gave it
        failed = f"cannot fetch {model.model_name}"
        with store_errors(self._layout, failed), verifying.Companion(self._layout, model.sha256) as companion:
            judge = _Judge(self._layout, model.pin, companion, stop)
            yield from downloading.download_once(self._layout, model.pin, judge, stop)

    def path(self, model: Wanted, status: ModelStatus) -> Path | None:
        """Return the path of the verified file."""
        return self._layout.verified_file(model.sha256, status.file_name)


@dataclass(slots=True)
class _Judge:
    """The verifier in this process, as the downloader's code asks it."""

    layout: StoreLayout
    pin: ModelPin
    companion: verifying.Companion
    stopped: threading.Event
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def hashed_bytes(self) -> int:
        return self.companion.hashed_bytes

    @property
    def copy_bytes(self) -> int:
        return self.companion.copy_bytes

    def stop(self) -> None:
        self.companion.stop()

    def judge(self) -> None:
        """Verify; once more where somebody else was at the same bytes. Raises R3mesError without a verdict."""
        for _ in range(_TRIES):
            outcome = self.companion.verify()
            if outcome is not verifying.Outcome.ERROR:
                break
        match outcome:
            case verifying.Outcome.ERROR:
                raise no_verdict(self.layout, self.pin)
            case verifying.Outcome.REFUSED:
                raise NotReadyError(f"{self.pin.model_name} is not pinned any more", next_step="r3mes genesis show")
            case verifying.Outcome.STOPPED if not self.stopped.is_set():
                raise R3mesError("the verification ended early", next_step="run the same command again")
            case _:
                pass


def pins_of(layout: StoreLayout) -> tuple[ModelPin, ...]:
    """Return what this host has accepted and staged, each digest once. Raises StoreError."""
    trust = read_trust(layout)
    pins: dict[str, ModelPin] = {}
    for pin in (*trust.genesis.models, *(trust.staged.models if trust.staged else ())):
        pins.setdefault(pin.sha256, pin)
    return tuple(pins.values())


def no_verdict(layout: StoreLayout, pin: ModelPin) -> R3mesError:
    """Return what it means that complete bytes could not be judged: most likely there is no room for the copy."""
    data = layout.data(pin.sha256)
    size = data.stat().st_size if data.exists() else 0
    missing = max(0, size - free_bytes(layout))
    again = "then run the same command again; what came is kept"
    if missing:
        return DiskFullError(
            f"no room for {pin.model_name}: the verified copy needs {missing} bytes more",
            missing_bytes=missing,
            next_step=f"free some space, {again}",
        )
    return R3mesError(f"there is no verdict on {pin.model_name}", next_step=f"check the disk, {again}")
