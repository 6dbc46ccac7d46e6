"""Commands forked from one process that has the launcher imported: a start costs milliseconds, not seconds.

What runs is the launcher's own `main`, in a process of its own with streams and environment of its own, at a
pseudo-terminal or not. `python -m tests.support.launcher_nursery FD` forks one for each message on that socket; between
them stands a process that waits, so that the exit code can be told. `start` is its client.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping

from tests.support.demo import PROJECT

_MOST_BYTES = 256 * 1024
_PR_SET_PDEATHSIG = 1


class Command:
    """A command that runs; `wait` gives its exit code, negative for a signal."""

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status)
        self.pid = int(self._status.readline())
        self.exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.exit_code is None and select.select([self._status], [], [], 0)[0]:
            self.exit_code = int(self._status.readline())
            self._status.close()
        return self.exit_code

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        if self.exit_code is None:
            select.select([self._status], [], [], seconds)
        code = self.poll()
        assert code is not None, f"it still runs after {seconds:g} s"
        return code

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(10)


def start(arguments: tuple[str, ...], environ: Mapping[str, str], streams: tuple[int, int, int]) -> Command:
    """Start `r3mes ARGUMENTS` with exactly this environment; where the streams are a terminal, it controls it."""
    read, write = os.pipe()
    message = json.dumps({"arguments": arguments, "environ": dict(environ)}).encode()
    socket.send_fds(_nursery(), [message], [*streams, write])
    os.close(write)
    return Command(read)


@functools.cache
def _nursery() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.launcher_nursery", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=PROJECT,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def main() -> None:
    """Fork a command for each message until the socket is closed."""
    from launcher.cli import COMMANDS  # noqa: PLC0415 - what takes the while
    from launcher.deferred import load  # noqa: PLC0415

    for row in COMMANDS:
        load(row)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for those who wait
    link = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(link, _MOST_BYTES, 4)
        if not message:
            return
        if os.fork() == 0:
            link.close()
            os._exit(_supervise(json.loads(message), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(wanted: dict[str, object], descriptors: list[int]) -> int:
    _end_with_the_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _become(wanted, streams)
    for stream in streams:
        os.close(stream)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, f"{code}\n".encode())
    return 0


def _become(wanted: dict[str, object], streams: list[int]) -> None:
    """Be the command: never returns."""
    _end_with_the_parent()
    os.setsid()
    if os.isatty(streams[0]):
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(wanted["environ"])  # type: ignore[call-overload]
    sys.argv = ["r3mes", *wanted["arguments"]]  # type: ignore[misc]
    code: object = 70
    try:
        from launcher.__main__ import main as run  # noqa: PLC0415

        run()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - a child never returns into the nursery's loop
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _end_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
