"""Downloaders and verifiers forked from one process that has everything imported: a start costs milliseconds.

For tests that start them hundreds of times; what runs is each service's own `main`, as in production, but for the size
of the verifier's steps in low-space mode, so that small files have several. `python -m tests.support.service_nursery`
forks one service for each line of JSON on its standard input and answers with its pid. All of them end with the
nursery, and the nursery with its input. `Nursery` is its client.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.forked import run_as_child

COMMIT_BYTES = 4 * 1024 * 1024
_REPOSITORY = Path(__file__).parents[2]


class Process:
    """One service that runs; killed and waited for through a descriptor, so that no other process can be meant."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = None

    def is_alive(self) -> bool:
        if self._descriptor is None:
            return False
        ended, _, _ = select.select([self._descriptor], [], [], 0)
        return not ended

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self._descriptor is not None and self.is_alive():
            signal.pidfd_send_signal(self._descriptor, number)

    def wait(self, seconds: float) -> bool:
        """Wait until it is gone; return whether it is."""
        if self._descriptor is None:
            return True
        ended, _, _ = select.select([self._descriptor], [], [], seconds)
        if ended:
            os.close(self._descriptor)
            self._descriptor = None
        return bool(ended)


class Nursery:
    """Forks services; may be used by several threads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, service: str, environ: Mapping[str, str], log: Path) -> Process:
        """Start `downloader` or `verifier` with exactly this environment; it appends to `log`."""
        wanted = {"service": service, "environ": dict(environ), "cwd": str(self._home), "log": str(log)}
        with self._lock:
            assert self._process is not None
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
            return Process(int(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.service_nursery"],
            env={"PATH": os.environ["PATH"], "HOME": str(self._home), "PYTHONPATH": str(_REPOSITORY)},
            cwd=self._home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> int:
    """Fork a service for each line until the input ends."""
    from services.downloader.__main__ import main as downloader  # noqa: PLC0415 - its client needs none of it
    from services.verifier import low_space  # noqa: PLC0415
    from services.verifier.__main__ import main as verifier  # noqa: PLC0415

    low_space.COMMIT_BYTES = COMMIT_BYTES
    mains = {"downloader": downloader, "verifier": verifier}
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for them
    while line := sys.stdin.buffer.readline():
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(run_as_child(mains[wanted["service"]], wanted["environ"], wanted["cwd"], wanted["log"]))
        os.write(1, f"{pid}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
