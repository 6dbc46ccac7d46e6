"""Ctrl-C, SIGTERM and a closed terminal as one fact that the main loop looks at: nothing is raised anywhere."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Self, TypeVar

POLL_SECONDS = 0.1
# What hangs in a system call for longer than this after an interrupt is left to the kernel.
STOP_SECONDS = 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class StoppedError(Exception):
    """The person does not want to wait any longer."""


class Interrupts:
    """While entered, the signals set `seen` and do nothing else, so that whatever runs ends in order."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True


def gather_until_interrupted(
    work: Callable[[threading.Event], Iterable[T]], on_end: Callable[[], None]
) -> list[T] | None:
    """Return what `work` yields, None where a signal came first, or it raised StoppedError. `on_end` is called last."""
    gathered: list[T] = []

    def gather(stop: threading.Event) -> None:
        try:
            gathered.extend(work(stop))
        except StoppedError:
            gathered.clear()

    with Interrupts() as interrupts:
        try:
            ended = run_until_interrupted(gather, interrupts)
        finally:
            on_end()
    return gathered if ended and gathered else None


def run_until_interrupted(work: Callable[[threading.Event], None], interrupts: Interrupts) -> bool:
    """Run `work` in a thread, whose event is set when a signal comes; tell whether it ended. Raises what it raised.

    In a thread, since the handler could meet a lock that its own thread holds.
    """
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001  the outermost of its thread: the main thread raises it again
            errors.append(error)

    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    deadline = float("inf")
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(POLL_SECONDS)
        if interrupts.seen and not stop.is_set():
            deadline = time.monotonic() + STOP_SECONDS
            stop.set()
    for error in errors:
        raise error
    return not thread.is_alive()
