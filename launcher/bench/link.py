"""The link: a few ranges of the pinned file, by the downloader's own connection, and thrown away."""

from __future__ import annotations

import threading
from collections.abc import Callable

from launcher.bench.figures import Figure, Measured, Missing
from launcher.doctor.probes.sources import pins_to_ask, scout
from launcher.doctor.subject import Subject
from launcher.interrupts import StoppedError
from shared.errors import R3mesError

ROUNDS = 3
ROUND_BYTES = 32 * 1024**2
ROUND_SECONDS = 4.0
LOOK_SECONDS = 6.0
_LEAST_SECONDS = 1e-6

Say = Callable[[str, int, int], None]


def measure_link(subject: Subject, say: Say, stop: threading.Event) -> Measured:
    """Return time to the first byte and rate; raises StoppedError."""
    if subject.offline:
        return [Missing("link", "--offline: nothing leaves this host")]
    pins = pins_to_ask(subject)
    if not pins:
        return [Missing("link", "no genesis says what to ask for", "run it in the project's folder")]
    pin = pins[0]
    try:
        asked = scout(subject)
        look = asked.look(pin, seconds=LOOK_SECONDS)
        if look.error is not None:
            return [Missing("link", look.error.message, "r3mes doctor")]
        size = look.size or pin.size_bytes or ROUND_BYTES
        firsts, rates = [], []
        for number in range(ROUNDS):
            if stop.is_set():
                raise StoppedError
            say("link", number, ROUNDS)
            start = _start(number, size)
            sample = asked.sample(pin, start, min(start + ROUND_BYTES, size), seconds=ROUND_SECONDS)
            firsts.append(sample.first_byte_seconds * 1000)
            rates.append(sample.count / max(sample.seconds - sample.first_byte_seconds, _LEAST_SECONDS) / 1e6)
        say("link", ROUNDS, ROUNDS)
    except R3mesError as error:
        return [Missing("link", error.message, "r3mes doctor")]
    how = f"ranges of {pin.model_name} over one connection, at most {ROUND_BYTES // 1024**2} MiB or {ROUND_SECONDS:g} s"
    return [
        Figure(
            "time to first byte", "ms", tuple(firsts), "connect, redirects and answer; warm-up: one look at the source"
        ),
        Figure("link rate", "MB/s", tuple(rates), f"{how}, after the first byte; warm-up: one look at the source"),
    ]


def _start(number: int, size: int) -> int:
    """Where a round begins: each in another part of the file, as long as there is one."""
    parts = max(1, size // ROUND_BYTES)
    return (number % parts) * ROUND_BYTES
