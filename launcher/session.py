"""What commands have in common that work on several things (files, models), one after the other.

A line a thing goes to stdout, or one JSON document; progress, hints and errors to stderr. One that fails does not keep
the next one from its turn; the exit code is that of them all.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from launcher.display import Display, printable
from launcher.interrupts import Interrupts, StoppedError, run_until_interrupted
from launcher.streams import write_data
from shared.errors import ExitCode, R3mesError

Item = TypeVar("Item")
Report = dict[str, object]


@dataclass(frozen=True, slots=True)
class Done:
    """How one thing ended, and an error if it did not end well.

    `line` for stdout (none if empty), `details` for `--json`, `note` for a person.
    """

    line: str
    details: Report = field(default_factory=dict)
    note: str = ""
    error: R3mesError | None = None


class Session(Generic[Item]):
    """Works on things one by one, tells how each ended, and remembers it in `reports`.

    `work` works on one: raises R3mesError, or StoppedError soon after the event is set. `stopped` is what a person is
    told after an interrupt.
    """

    def __init__(
        self, work: Callable[[Item, threading.Event], Done], display: Display, *, as_json: bool, stopped: str
    ) -> None:
        self._work = work
        self._display = display
        self._as_json = as_json
        self._stopped = stopped
        self._codes: list[int] = []
        self.reports: list[Report] = []

    def title(self, item: Item) -> str:
        """Return what a person calls this one."""
        return str(item)

    def identity(self, item: Item) -> Report:
        """Return by which keys a script knows this one."""
        raise NotImplementedError

    def failure(self, error: R3mesError) -> Report:  # noqa: ARG002 - for those who know more about it
        """Return what a script is told of an error beside its words."""
        return {"result": "failed"}

    def run(self, items: Sequence[Item]) -> ExitCode:
        """Work on every one, until interrupted; return the exit code of the whole run."""
        with Interrupts() as interrupts:
            try:
                if not run_until_interrupted(lambda stop: self._run(items, stop), interrupts):
                    self._codes.append(ExitCode.INTERRUPTED)
            finally:
                self._display.pause()
        return exit_code(self._codes)

    def _run(self, items: Sequence[Item], stop: threading.Event) -> None:
        for item in items:
            if len(items) > 1:
                self._display.say(self.title(item))
            try:
                self._tell(item, self._work(item, stop))
            except StoppedError:
                self._display.pause()
                self._display.say(self._stopped)
                self._report(item, {"result": "interrupted"}, ExitCode.INTERRUPTED)
                return
            except R3mesError as error:
                self._fail(item, error, {})
            self._display.pause()

    def _tell(self, item: Item, done: Done) -> None:
        self._display.pause()
        if done.note:
            self._display.say(done.note)
        if done.line and not self._as_json:
            write_data(printable(done.line) + "\n")
        if done.error is not None:
            self._fail(item, done.error, done.details)
        else:
            self._report(item, done.details, ExitCode.OK)

    def _fail(self, item: Item, error: R3mesError, details: Report) -> None:
        self._display.pause()
        if os.environ.get("R3MES_DEBUG") == "1" and sys.exc_info()[0] is not None:
            traceback.print_exc()
        self._display.error(f"error: {error.diagnostics()}")
        told = self.failure(error) | details | {"message": error.message, "next_step": error.next_step}
        self._report(item, told, error.exit_code)

    def _report(self, item: Item, details: Report, code: ExitCode) -> None:
        self.reports.append({**self.identity(item), **details, "exit_code": int(code)})
        self._codes.append(code)


def exit_code(codes: Sequence[int]) -> ExitCode:
    """Return the code of the whole run: an interrupt, then wrong bytes, then the first failure."""
    for code in (ExitCode.INTERRUPTED, ExitCode.INTEGRITY):
        if code in codes:
            return code
    return ExitCode(next((code for code in codes if code), ExitCode.OK))
