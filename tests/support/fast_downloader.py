"""The real downloader with short times, names that a test teaches it, and no way out of loopback.

`python -m tests.support.fast_downloader` runs one, as `python -m services.downloader` would. With `--nursery` it stays
behind with everything imported and forks one for each line of JSON on its standard input, which takes milliseconds
instead of a second; each answer is a pid. All of them end with the nursery, and the nursery with its input.

FAULTS_NAMES is a JSON object: for a host, what its 1st, 2nd, … look-up gives; the last one stays.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

from services.downloader.__main__ import run
from services.downloader.limits import Limits
from services.downloader.settings import load_downloader_settings
from shared.errors import R3mesError
from shared.log import configure_logging
from tests.support.forked import run_as_child

KIB = 1024
SHORT = Limits(
    range_bytes=64 * KIB,
    buffer_bytes=16 * KIB,
    journal_seconds=0.2,
    connect_seconds=1.5,
    first_byte_seconds=1.0,
    stall_seconds=1.0,
    stall_bytes=4 * KIB,
    least_bytes_per_second=32 * KIB,
    quiet_seconds=4.0,
    first_wait_seconds=0.02,
    longest_wait_seconds=0.1,
    chain_seconds=4.0,
    chain_again_seconds=0.3,
    chain_veto_seconds=0.3,
    chain_silent_seconds=0.3,
)

# What stands in the log for each connection that is tried, followed by address and port.
CONNECTS = "connects to"


def main() -> int:
    """Run one downloader; return its exit code."""
    sys.addaudithook(_tell_and_stay_on_loopback)
    _teach_names(json.loads(os.environ.get("FAULTS_NAMES", "{}")))
    configure_logging("downloader")
    try:
        settings = load_downloader_settings()
        configure_logging("downloader", settings.log_level)
        return run(settings, os.environ, SHORT)
    except R3mesError as error:
        print(error.diagnostics(), file=sys.stderr, flush=True)  # noqa: T201
        return error.exit_code


def nursery() -> int:
    """Fork a downloader for each line until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for them
    while line := sys.stdin.buffer.readline():
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(run_as_child(main, **wanted))
        print(pid, flush=True)  # noqa: T201
    return 0


def _tell_and_stay_on_loopback(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    address, port = str(arguments[1][0]), arguments[1][1]
    os.write(2, f"{CONNECTS} {address} {port}\n".encode())
    if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise OSError(errno.ENETUNREACH, "no way out of loopback")


def _teach_names(names: dict[str, list[list[str]]]) -> None:
    """Let names resolve as a test says: a resolver is the one thing that it cannot have for itself."""
    real, lock = socket.getaddrinfo, threading.Lock()

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401
        turns = names.get(host)
        if turns is None:
            return list(real(host, port, *args, **kwargs))
        with lock:
            addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    socket.getaddrinfo = resolve  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(nursery() if sys.argv[1:] == ["--nursery"] else main())
