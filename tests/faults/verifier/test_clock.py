"""The clock of the day is set while the chain works: hours forward, hours back, at every stage.

A preloaded library moves CLOCK_REALTIME alone, in processes that run; the monotonic clock and the times of files stay
what they are, as when an operator or NTP sets the clock. (libfaketime 0.9.10 moves the absolute monotonic sleeps of
Python 3.11 with it: `time.sleep` fails with EINVAL.)
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis

from shared.redis_rights import DOWNLOADER, VERIFIER
from tests.support.chain import MIB, Chain
from tests.support.programs import need
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

QUEUE = "rq:queue:verify:local"
VERDICT_SECONDS = 60.0
SIZE = 16 * MIB
SOURCE = Path(__file__).parents[2] / "support" / "jumping_clock.c"


class Clock:
    """What the two services take for the time of the day."""

    def __init__(self, directory: Path) -> None:
        self._file, self._library = directory / "offset", directory / "jumping_clock.so"
        self.set(0)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)]
        subprocess.run(command, check=True)

    def set(self, hours: int) -> None:
        """Jump to so many hours from the real time."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, struct.pack("q", hours * 3600), 0)
        os.close(descriptor)

    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "JUMPING_CLOCK": str(self._file)}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    need("cc")
    return Clock(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True, node="local") as server:
        yield server


def seen_times(log: str) -> list[datetime]:
    lines = (line for line in log.splitlines() if line.startswith("{"))
    return sorted(datetime.fromisoformat(json.loads(line)["timestamp"]) for line in lines)


def test_a_clock_that_jumps_for_hours_delays_nothing(tmp_path: Path, server: RedisServer, clock: Clock) -> None:
    urls = {"downloader_redis": server.service_url(DOWNLOADER), "verifier_redis": server.service_url(VERIFIER)}
    with (
        redis.Redis.from_url(server.url) as admin,
        Chain(tmp_path / "home", size=SIZE, pace=2e6, environ=clock.environ(), **urls) as chain,
    ):
        chain.start()
        for part, hours in ((1, 5), (2, -7), (3, 30)):
            wait_until(lambda p=part: chain.received() > SIZE * p // 5, 60, f"{part} fifths")
            clock.set(hours)
        # The verdict is asked for tomorrow, and the question is lost; then it is yesterday.
        os.kill(chain.verifier.process.pid, signal.SIGSTOP)
        wait_until(lambda: admin.info("clients")["blocked_clients"] == 0, 10, "the verifier to wait for no job")
        chain.downloader.wait_for(chain.digest, "verifying", 60)
        wait_until(lambda: admin.llen(QUEUE), 10, "the job")
        clock.set(-9)
        admin.flushall()
        wait_until(lambda: admin.llen(QUEUE), VERDICT_SECONDS, "the job to be queued again")
        os.kill(chain.verifier.process.pid, signal.SIGCONT)
        chain.wait_verified(VERDICT_SECONDS)
        # Back in the present a scrub, a receipt and a restart find nothing to object to.
        clock.set(0)
        assert chain.verifier.terminate() == 0
        chain.verifier.restart()
        chain.verifier.wait_until_ready()
        chain.wait_verified(10)
        for log in (chain.downloader.log, chain.verifier.log()):
            times = seen_times(log)
            assert times[-1] - times[0] > timedelta(hours=8), "the clock did not jump"
        assert chain.origin.counters["sent"] <= SIZE * 1.25 + MIB, "bytes were downloaded twice"
