"""Kill a miner's engine at a moment of one's choice: the tests read its flight recorder while it stands still."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from services.miner.engine.flight import MEMORY_NAME, Flight, Work, read_flight
from tests.support.waiting import wait_until


def stop_while(engine: psutil.Process, wanted: Callable[[Flight], bool], timeout: float = 60.0) -> Flight:
    """Leave the engine stopped (SIGSTOP) at a moment when it does what is wanted, and return what it does."""

    def stopped() -> Flight | None:
        engine.suspend()
        wait_until(lambda: engine.status() == psutil.STATUS_STOPPED, 10, "it stands still")
        flight = read(engine)
        if wanted(flight):
            return flight
        engine.resume()
        return None

    return wait_until(stopped, timeout, "the engine does what the test waits for")


def read(engine: psutil.Process) -> Flight:
    """Read the recorder of an engine that is stopped."""
    for link in Path(f"/proc/{engine.pid}/fd").iterdir():
        if MEMORY_NAME in str(link.readlink()):
            descriptor = os.open(link, os.O_RDONLY)
            try:
                return read_flight(descriptor)
            finally:
                os.close(descriptor)
    raise AssertionError("the engine has no flight recorder")


def decodes(streams: int) -> Callable[[Flight], bool]:
    """The moment of a decode for so many requests together."""
    return lambda flight: flight.work is Work.DECODING and len(flight.request_ids) == streams


def idle(flight: Flight) -> bool:
    """The moment between two steps, or without any."""
    return flight.work is Work.IDLE
