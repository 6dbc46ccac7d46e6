"""The flight recorder in real shared memory, read while its writer stands still wherever it happens to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.miner.engine.flight import (
    HALF_BYTES,
    MEMORY_BYTES,
    Flight,
    FlightRecorder,
    Work,
    new_memory,
    read_flight,
)
from tests.support.waiting import wait_until

WRITER = """
import itertools, sys
from services.miner.engine.flight import FlightRecorder, Work
recorder = FlightRecorder(int(sys.argv[1]))
for number in itertools.count():
    name = f"request-{number}"
    recorder.working(Work.DECODING, [name] * (1 + number % 16))
    if number == 1000:
        print("writes", flush=True)
"""


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = new_memory()
    yield descriptor
    os.close(descriptor)


def test_fresh_memory_says_loading(memory: int) -> None:
    assert read_flight(memory) == Flight(Work.LOADING)


@pytest.mark.parametrize(
    ("work", "ids"),
    [(Work.IDLE, ()), (Work.SAMPLING, ("a",)), (Work.DECODING, tuple(f"{number:0100}" for number in range(256)))],
)
def test_what_was_written_last_is_read(memory: int, work: Work, ids: tuple[str, ...]) -> None:
    recorder = FlightRecorder(memory)
    recorder.working(Work.ADMITTING, ["before"])
    recorder.working(work, ids)
    assert read_flight(memory) == Flight(work, ids)


def test_more_ids_than_room_cost_ids_and_not_the_engine(memory: int) -> None:
    FlightRecorder(memory).working(Work.DECODING, [f"{number:0200}" for number in range(256)])
    flight = read_flight(memory)
    assert flight.work is Work.DECODING
    assert 0 < sum(map(len, flight.request_ids)) < HALF_BYTES


def test_memory_that_was_written_over_is_refused(memory: int) -> None:
    os.pwrite(memory, b"\xff" * 100_000, 0)
    with pytest.raises(ValueError, match="half 255"):
        read_flight(memory)


def test_wherever_the_writer_stands_still_a_whole_entry_is_read(memory: int) -> None:
    command = [sys.executable, "-c", WRITER, str(memory)]
    seen = set()
    with subprocess.Popen(command, pass_fds=(memory,), stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(60):
                writer.send_signal(signal.SIGSTOP)
                os.waitpid(writer.pid, os.WUNTRACED)
                flight = read_flight(memory)
                (name,) = set(flight.request_ids)
                assert len(flight.request_ids) == 1 + int(name.removeprefix("request-")) % 16
                seen.add(name)
                before = os.pread(memory, MEMORY_BYTES, 0)
                writer.send_signal(signal.SIGCONT)
                wait_until(lambda before=before: os.pread(memory, MEMORY_BYTES, 0) != before, 10, "it writes on")
        finally:
            writer.kill()
    assert len(seen) > 40
