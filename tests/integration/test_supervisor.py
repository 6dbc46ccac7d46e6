"""The demo's supervisor with real processes and real kills."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.demo.supervisor import ServiceEndedError, ServiceSpec, Supervisor
from tests.support.waiting import wait_until

SLEEPER = "import signal\nprint('up', flush=True)\nsignal.pause()\n"
# A service with an engine process, which ignores SIGTERM as a busy one would.
WITH_ENGINE = (
    "import signal, subprocess, sys\n"
    "engine = subprocess.Popen([sys.executable, '-c',"
    " 'import signal; signal.signal(15, signal.SIG_IGN); print(\"engine up\", flush=True); signal.pause()'])\n"
    "signal.pause()\n"
)


class Stack:
    """A supervisor and what it said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.supervisor: Supervisor | None = None

    def start(self, **programs: str) -> Supervisor:
        specs = [
            ServiceSpec(name, [sys.executable, "-c", program], dict(os.environ), self.log(name))
            for name, program in programs.items()
        ]
        self.supervisor = Supervisor(specs, self.said.append)
        self.supervisor.start()
        return self.supervisor

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def process(self, name: str) -> psutil.Process:
        assert self.supervisor is not None
        return psutil.Process(self.supervisor.pids()[name])


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    if stack.supervisor:
        stack.supervisor.stop()


def test_a_killed_service_is_started_again(stack: Stack) -> None:
    supervisor = stack.start(sleeper=SLEEPER)
    first = stack.process("sleeper")
    wait_until(lambda: "up" in stack.log("sleeper").read_text(), what="it is up")
    first.kill()

    def again() -> bool:
        supervisor.poll()
        return supervisor.pids().get("sleeper", first.pid) != first.pid

    wait_until(again, what="another process runs")
    assert stack.said == ["the sleeper was killed by signal 9", "the sleeper is started again"]


def test_a_configuration_error_ends_the_demo_with_its_code(stack: Stack) -> None:
    supervisor = stack.start(broken="import sys; sys.exit(78)")

    def ended() -> ServiceEndedError | None:
        try:
            supervisor.poll()
        except ServiceEndedError as error:
            return error
        return None

    error = wait_until(ended, what="the supervisor gives up")
    assert error is not None
    assert (error.returncode, error.spec.name) == (78, "broken")


def test_the_group_of_a_killed_service_goes_with_it(stack: Stack) -> None:
    supervisor = stack.start(miner=WITH_ENGINE)
    wait_until(lambda: "engine up" in stack.log("miner").read_text(), what="the engine is up")
    (engine,) = stack.process("miner").children()
    stack.process("miner").kill()
    wait_until(lambda: supervisor.poll() is None and not _lives(engine), what="the engine is gone")


def test_stop_leaves_no_process_behind(stack: Stack) -> None:
    supervisor = stack.start(sleeper=SLEEPER, miner=WITH_ENGINE)
    wait_until(lambda: "engine up" in stack.log("miner").read_text(), what="the engine is up")
    processes = [stack.process("sleeper"), stack.process("miner"), *stack.process("miner").children()]
    supervisor.stop()
    assert supervisor.pids() == {}
    wait_until(lambda: not any(map(_lives, processes)), what="all are gone")


def test_a_service_that_ignores_sigterm_is_killed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.demo.supervisor.STOP_SECONDS", 0.5)
    deaf = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\nsignal.pause()\n"
    supervisor = stack.start(deaf=deaf)
    wait_until(lambda: "up" in stack.log("deaf").read_text(), what="it is up")
    process = stack.process("deaf")
    supervisor.stop()
    assert not _lives(process)


def test_services_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from launcher.demo.supervisor import ServiceSpec, Supervisor\n"
        f"log = Path({str(tmp_path)!r}) / 'log'\n"
        f"spec = ServiceSpec('sleeper', [sys.executable, '-c', {SLEEPER!r}], dict(os.environ), log)\n"
        "supervisor = Supervisor([spec], print)\nsupervisor.start()\n"
        "print(supervisor.pids()['sleeper'], flush=True)\nsignal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        service = psutil.Process(int(demo.stdout.readline()))
        wait_until(lambda: "up" in (tmp_path / "log").read_text(), what="it is up")
        os.kill(demo.pid, signal.SIGKILL)
    wait_until(lambda: not _lives(service), what="the service is gone")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
