"""The processes of the demo: started, watched, started again, and all gone at the end.

Invariants: every process is tied to this one (it gets SIGTERM when this one dies, whatever the reason) and leads a
session and process group of its own, which is killed as a whole when it ends: an engine never outlives its miner.
A group is killed before its leader is reaped, so that its number cannot have passed to someone else.

Order of calls: `Supervisor(specs, say)` → `start()` → `poll()` about ten times a second → `stop()`. All of it from one
thread that lives as long as the process (see `launcher.tied`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher.demo.restarts import GiveUp, after_exit, describe_exit
from launcher.tied import tied
from shared.errors import ExitCode, R3mesError

STOP_SECONDS = 10.0  # then SIGKILL
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: its command, its whole environment, and the file that takes what it says."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path


class ServiceEndedError(R3mesError):
    """A service ended and is not started again; `returncode` is what the demo exits with."""

    def __init__(self, spec: ServiceSpec, returncode: int, code: int) -> None:
        super().__init__(f"the {spec.name} {describe_exit(returncode)}", next_step=f"read {spec.log_file}")
        self.spec = spec
        self.returncode = code


@dataclass
class _Running:
    spec: ServiceSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float | None = None
    in_a_row: int = field(default=0)


class Supervisor:
    """Keeps the given services running; `say` takes one line for a person."""

    def __init__(self, specs: Sequence[ServiceSpec], say: Callable[[str], None]) -> None:
        self._services = [_Running(spec) for spec in specs]
        self._say = say

    def start(self) -> None:
        """Start every service, each with an empty log file; raises OSError."""
        for service in self._services:
            service.spec.log_file.write_bytes(b"")
            _launch(service)

    def pids(self) -> dict[str, int]:
        """The process ids by name of what runs now."""
        return {service.spec.name: service.process.pid for service in self._services if service.process}

    def poll(self) -> None:
        """Notice what ended and start again what is due; raises ServiceEndedError when that cannot help."""
        now = time.monotonic()
        for service in self._services:
            returncode = _reap_if_ended(service)
            if returncode is not None:
                self._decide(service, returncode, now)
            if service.start_again_at is not None and now >= service.start_again_at:
                _launch(service)
                self._say(f"the {service.spec.name} is started again")

    def stop(self) -> None:
        """End all: SIGTERM to each, SIGKILL to whole groups that are still there after STOP_SECONDS."""
        for service in self._services:
            service.start_again_at = None
            if service.process:
                with suppress(ProcessLookupError):
                    os.kill(service.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and not all(_reap_if_ended(service) is not None for service in self._alive()):
            time.sleep(POLL_SECONDS)
        for service in self._alive():
            _kill_group(service)

    def _alive(self) -> list[_Running]:
        return [service for service in self._services if service.process]

    def _decide(self, service: _Running, returncode: int, now: float) -> None:
        decision = after_exit(returncode, lived_seconds=now - service.started_at, in_a_row=service.in_a_row)
        if isinstance(decision, GiveUp):
            raise ServiceEndedError(service.spec, returncode, decision.exit_code)
        service.in_a_row = decision.in_a_row
        service.start_again_at = now + decision.delay_seconds
        self._say(f"the {service.spec.name} {describe_exit(returncode)}")


def _launch(service: _Running) -> None:
    service.start_again_at = None
    with service.spec.log_file.open("ab") as log:
        service.process = subprocess.Popen(  # noqa: S603  our own command line
            tied(service.spec.command),
            env=dict(service.spec.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C is for the demo, which then ends them in order
        )
    service.started_at = time.monotonic()


def _reap_if_ended(service: _Running) -> int | None:
    """Return the exit status once the service's process ended, its whole group gone; None while it lives."""
    if service.process is None:
        return None
    if os.waitid(os.P_PID, service.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    return _kill_group(service)


def _kill_group(service: _Running) -> int:
    process = service.process
    if process is None:
        return ExitCode.OK
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    service.process = None
    return process.wait()
