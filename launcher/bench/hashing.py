"""SHA-256 on one core, of bytes that are in memory: what a verification cannot be faster than."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable

from launcher.bench.figures import Figure, Measured
from launcher.interrupts import StoppedError

ROUNDS = 5
_BUFFER = 4 * 1024**2
_BUFFERS = 32

Say = Callable[[str, int, int], None]


def measure_hash(say: Say, stop: threading.Event) -> Measured:
    """Return the rate; raises StoppedError."""
    buffer = secrets.token_bytes(_BUFFER)
    _round(buffer)
    rates = []
    for number in range(ROUNDS):
        if stop.is_set():
            raise StoppedError
        say("hash", number, ROUNDS)
        rates.append(_BUFFER * _BUFFERS / _round(buffer) / 1e9)
    say("hash", ROUNDS, ROUNDS)
    size = _BUFFER * _BUFFERS // 1024**2
    return [Figure("hash", "GB/s", tuple(rates), f"SHA-256 of {size} MiB in memory, one core; warm-up: one round")]


def _round(buffer: bytes) -> float:
    digest, began = hashlib.sha256(), time.perf_counter()
    for _ in range(_BUFFERS):
        digest.update(buffer)
    digest.hexdigest()
    return time.perf_counter() - began
