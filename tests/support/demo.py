"""`r3mes demo` as a process with a home of its own, for tests: what it wrote, where it listens, what it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import requests

from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[2]


class Demo:
    """A demo whose store, logs and settings are all under `home`; killed with all it started on exit."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        self.home = home
        self.store = home / ".r3mes" / "models"
        self.tampered_store = home / ".r3mes" / "demo-tampered" / "models"
        self.directory = home / ".r3mes" / "demo"
        self._stdout = home / f"stdout-{os.urandom(4).hex()}"
        self._stderr = home / f"stderr-{os.urandom(4).hex()}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("R3MES_", "HF_"))}
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher", "demo", *arguments],
                env={**kept, "HOME": str(home), **environment},
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """The answer and the table, so far."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """Progress and hints, so far."""
        return self._stderr.read_text()

    @property
    def row(self) -> dict[str, str]:
        """The rows of the table."""
        return dict(line.split(": ", 1) for line in self.stdout.splitlines() if ": " in line)

    def url(self, role: str) -> str:
        """Where a service listens."""
        return str(json.loads((self.directory / "endpoints.json").read_text())[role])

    def service(self, role: str) -> psutil.Process | None:
        """The process of a service that runs now."""
        for process in _processes_of(self.home):
            try:
                if f"services.{role}" in process.cmdline() and "-m" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None

    def redis(self) -> psutil.Process | None:
        """Redis's process."""
        return next((process for process in _processes_of(self.home) if "redis-server" in process.name()), None)

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Wait until the demo said something on stderr; fails at once when it ended without."""

        def said() -> bool:
            ended = self.process.poll() is not None
            if text in self.stderr:
                return True
            if ended:
                raise RuntimeError(f"the demo ended with {self.process.returncode}:\n{self.stderr}{self.stdout}")
            return False

        wait_until(said, timeout, f"the demo says {text!r}; it said:\n{self.stderr}")

    def wait(self, timeout: float = 90.0) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(timeout)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send a signal to the demo alone, as `kill` does."""
        self.process.send_signal(number)

    def ask(self, text: str = "What is the capital of France?") -> str:
        """Ask the miner over HTTP and return its answer; raises requests' errors."""
        answer = requests.post(
            f"{self.url('miner')}/v1/chat/completions",
            json={
                "model": "SmolLM2-135M-Instruct",
                "messages": [{"role": "user", "content": text}],
                "max_tokens": 12,
                "temperature": 0,
            },
            timeout=60,
        )
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    def answers(self) -> bool:
        """Tell whether the stack answers a question now."""
        try:
            return bool(self.ask())
        except requests.RequestException:
            return False

    def left_behind(self) -> list[str]:
        """Every process but the demo that has this home in its command line or environment."""
        return [
            " ".join(_quietly(process.cmdline))
            for process in _processes_of(self.home)
            if process.pid != self.process.pid
        ]

    def __enter__(self) -> Self:
        """Give it to the test."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, by force if need be; and leave nothing."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in _processes_of(self.home):
            _quietly(process.kill)


def _processes_of(home: Path) -> list[psutil.Process]:
    """Return the processes that know this home: from their command line, their environment, or as where they are."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [*process.cmdline(), *process.environ().values(), process.cwd()]
        except psutil.Error:
            continue
        if any(word == str(home) or f"{home}/" in word for word in words):
            found.append(process)
    return found


def _quietly(call: object) -> list[str]:
    try:
        result = call()  # type: ignore[operator]
    except psutil.Error:
        return []
    return result if isinstance(result, list) else []
