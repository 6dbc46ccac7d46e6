"""`r3mes` where nothing is a terminal: what it wrote, and its exit code."""

from __future__ import annotations

import os
import signal
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.launcher_nursery import Command, start

SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def launch(*arguments: str, given: str = "", **environment: str) -> Done:
    """Run a command with `given` on stdin, and wait for it; nothing that it writes may be for a terminal alone."""
    with Started(*arguments, given=given, **environment) as command:
        done = command.wait()
    for text in (done.stdout, done.stderr):
        assert "\r" not in text
        assert "\x1b" not in text
    assert "Traceback" not in done.stderr
    return done


class Started:
    """A command whose output is read while it runs; killed on exit."""

    def __init__(self, *arguments: str, given: str = "", **environment: str) -> None:
        read, write = os.pipe()
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        with tempfile.TemporaryFile("w+") as stdin:
            stdin.write(given)
            stdin.seek(0)
            streams = (stdin.fileno(), write, self._stderr.fileno())
            self.command: Command = start(arguments, {**os.environ, **environment}, streams)
        os.close(write)
        self.stdout = os.fdopen(read, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.command.kill()
        self.stdout.close()
        self._stderr.close()

    def interrupt(self) -> None:
        self.command.send(signal.SIGINT)

    def wait(self) -> Done:
        """Read what is left to read, and wait for the end."""
        stdout = self.stdout.read()
        code = self.command.wait(SECONDS)
        self._stderr.seek(0)
        return Done(code, stdout, self._stderr.read())
