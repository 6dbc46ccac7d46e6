"""All checks at once, each in a thread of its own and each within its bound: one that hangs costs its bound, no more.

The threads are daemons, since what hangs in a system call (a resolver, a dead network file system) cannot be stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Finding, Verdict, failed, from_error, skipped, warning
from launcher.interrupts import StoppedError
from shared.errors import ExitCode, R3mesError

POLL_SECONDS = 0.1
Run = Callable[[Subject], Sequence[Verdict]]


@dataclass(frozen=True, slots=True)
class Check:
    """`seconds` bound it, None: it reads whole files; `leaves_host`: not run with `--offline`.

    `when_late` is the failure that no answer in time means while something is still to be downloaded.
    """

    group: str
    name: str
    run: Run
    seconds: float | None = 5.0
    leaves_host: bool = False
    when_late: ExitCode | None = None


def run_checks(checks: Sequence[Check], subject: Subject) -> list[Finding]:
    """Run all of them, and return what they found in their order; raises StoppedError soon after `subject.stop`."""
    runs = [_Running(check, subject) for check in checks]
    for each in runs:
        each.start()
    return [finding for each in runs for finding in each.findings()]


class _Running(threading.Thread):
    def __init__(self, check: Check, subject: Subject) -> None:
        super().__init__(name=f"check-{check.name}", daemon=True)
        self._check = check
        self._subject = subject
        self._began = time.monotonic()
        self._verdicts: Sequence[Verdict] | None = None

    def run(self) -> None:
        if self._check.leaves_host and self._subject.offline:
            self._verdicts = [skipped("--offline: nothing leaves this host")]
            return
        try:
            self._verdicts = self._check.run(self._subject)
        except R3mesError as error:
            self._verdicts = [from_error(error)]
        except OSError as error:
            self._verdicts = [warning(f"cannot be looked at: {error}", "look at the file's or device's own rights")]
        except Exception as error:  # noqa: BLE001  the outermost of its thread: one check spoils no other
            self._verdicts = [_broken(error)]

    def findings(self) -> list[Finding]:
        """Wait for its end or its bound."""
        bound = self._check.seconds
        while self.is_alive() and (bound is None or time.monotonic() < self._began + bound):
            self.join(POLL_SECONDS)
            if self._subject.stop.is_set():
                break
        if self._subject.stop.is_set():
            raise StoppedError  # also for one that has ended: a file that was not read to its end has another digest
        verdicts = [self._late()] if self._verdicts is None else self._verdicts
        return [Finding(self._check.group, self._check.name, each) for each in verdicts]

    def _late(self) -> Verdict:
        said, code = f"no answer within {self._check.seconds or 0:g} s", self._check.when_late
        next_step = "what it asks hangs: try it by hand, or again later"
        if code is not None and self._subject.outstanding:
            return failed(said, next_step, code)
        return warning(said, next_step)


def _broken(error: Exception) -> Verdict:
    return failed(
        f"this check itself failed: {type(error).__name__}: {error}",
        "report it, with the output of `r3mes doctor --json`",
        ExitCode.FAILURE,
    )
