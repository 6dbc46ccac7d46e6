"""Ports of the loopback interface for processes that are started next: free now, and not taken until they listen.

Seconds pass between the look and the bind. Two things may come in between: a connection to which the kernel gives any
port of its own range, so a port outside of it is chosen; and another demo, so each one *claims* its ports by names in
the abstract Unix namespace, which is as wide as that of the ports and forgets a name with the process that holds it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"
LOWEST = 10_000  # below are the ports that people know by heart
MOST_LOOKS = 200
_KERNEL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_KERNEL_RANGE = (32_768, 60_999)

Name = TypeVar("Name", bound=str)


def is_free(port: int) -> bool:
    """Tell whether a service could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: what a closed one left behind does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nothing listens on now, and that the kernel gives to nobody by itself."""
    kernel = _kernel_range()
    candidates = [port for port in range(LOWEST, 65_536) if port not in kernel]
    looks = min(MOST_LOOKS, len(candidates))
    for port in random.SystemRandom().sample(candidates, looks):
        if is_free(port):
            return port
    with socket.socket() as probe:  # the kernel's range is everything here
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def claimed_ports(wanted: Mapping[Name, int]) -> Iterator[dict[Name, int]]:
    """Yield each one's wanted port where it is free and unclaimed, else another; claimed until the block ends."""
    with ExitStack() as claims:
        yield {name: _claim_one(port, claims) for name, port in wanted.items()}


def _claim_one(wanted: int, claims: ExitStack) -> int:
    port = wanted
    while True:
        claim = _claim(port)
        if claim is not None:
            claims.enter_context(claim)
            if is_free(port):
                return port
        port = free_port()


def _claim(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0r3mes-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _kernel_range() -> range:
    try:
        low, high = map(int, _KERNEL_RANGE.read_text().split())
    except (OSError, ValueError):
        low, high = _USUAL_KERNEL_RANGE
    return range(low, high + 1)
