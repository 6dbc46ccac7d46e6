"""What `r3mes import` and `r3mes verify` have in common: several files, one after the other.

A line a file goes to stdout, or one JSON document; progress, hints and errors to stderr. A file that fails does not
keep the next one from its turn; the exit code is that of them all.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.display import Display, printable, short_path
from launcher.importing import NotPinnedError, StoppedError
from launcher.interrupts import Interrupts, run_until_interrupted
from launcher.streams import write_data
from shared.errors import ExitCode, R3mesError

Report = dict[str, object]


@dataclass(frozen=True, slots=True)
class Done:
    """How one file ended: the line for stdout, the details for `--json`, a note for a person, an error if it is one."""

    line: str
    details: Report = field(default_factory=dict)
    note: str = ""
    error: R3mesError | None = None


Work = Callable[[Path, threading.Event], Done]
"""Works on one file; raises R3mesError, or StoppedError soon after the event is set."""


class FileSession:
    """Works on files one by one, tells how each ended, and remembers it in `reports`."""

    def __init__(self, work: Work, display: Display, *, as_json: bool, stopped: str) -> None:
        self._work = work
        self._display = display
        self._as_json = as_json
        self._stopped = stopped  # what a person is told after an interrupt
        self._codes: list[int] = []
        self.reports: list[Report] = []

    def run(self, files: Sequence[Path]) -> ExitCode:
        """Work on every file, until interrupted; return the exit code of the whole run."""
        with Interrupts() as interrupts:
            try:
                if not run_until_interrupted(lambda stop: self._run(files, stop), interrupts):
                    self._codes.append(ExitCode.INTERRUPTED)
            finally:
                self._display.pause()
        return exit_code(self._codes)

    def _run(self, files: Sequence[Path], stop: threading.Event) -> None:
        for file in files:
            if len(files) > 1:
                self._display.say(short_path(file))
            try:
                self._tell(file, self._work(file, stop))
            except StoppedError:
                self._display.pause()
                self._display.say(self._stopped)
                self._report(file, {"result": "interrupted"}, ExitCode.INTERRUPTED)
                return
            except R3mesError as error:
                self._fail(file, error, {})
            self._display.pause()

    def _tell(self, file: Path, done: Done) -> None:
        self._display.pause()
        if done.note:
            self._display.say(done.note)
        if not self._as_json:
            write_data(printable(done.line) + "\n")
        if done.error is not None:
            self._fail(file, done.error, done.details)
        else:
            self._report(file, done.details, ExitCode.OK)

    def _fail(self, file: Path, error: R3mesError, details: Report) -> None:
        self._display.pause()
        if os.environ.get("R3MES_DEBUG") == "1":
            traceback.print_exc()
        self._display.say(f"error: {error.diagnostics()}")
        told: Report = {"result": "failed"}
        if isinstance(error, NotPinnedError):
            told = {"result": "not_pinned", "sha256": error.sha256, "pinned": list(error.pinned)}
        told |= {**details, "message": error.message, "next_step": error.next_step}
        self._report(file, told, error.exit_code)

    def _report(self, file: Path, details: Report, code: ExitCode) -> None:
        self.reports.append({"file": str(file), **details, "exit_code": int(code)})
        self._codes.append(code)


def exit_code(codes: Sequence[int]) -> ExitCode:
    """Return the code of the whole run: an interrupt, then wrong bytes, then the first failure."""
    for code in (ExitCode.INTERRUPTED, ExitCode.INTEGRITY):
        if code in codes:
            return code
    return ExitCode(next((code for code in codes if code), ExitCode.OK))
