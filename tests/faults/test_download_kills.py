"""SIGKILL at random instants of a download: each next process goes on, and little that had come is fetched again.

What a kill costs is measured from outside: the body bytes that the origin sent to one process, less what the journal's
durable ranges grew by. Instants are drawn by bytes and by what the disk shows, not by guesses of speed; the seed is
printed, and `KILL_SEED` sets it.
"""

from __future__ import annotations

import enum
import os
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from benchmarks.origin import MIB, Behaviour, Origin, file_digest
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.ranges import Ranges, covered
from shared.store.layout import StoreLayout
from tests.support.downloader_fork import start_downloader
from tests.support.downloader_process import Downloader
from tests.support.geneses import entry
from tests.support.waiting import wait_until

# What a SIGKILL may cost: the promise of the design.
MAX_LOSS = 64 * MIB
# Slow enough that kills land in the middle; large enough that a downloader without a journal would break the promise.
TOGETHER = 300e6
SEND_BUFFER = 128 * 1024  # what waits in the origin's sockets counts as sent
POLL_SECONDS = 0.0005
STUCK_SECONDS = 60


class Instant(enum.Enum):
    """When a process is killed."""

    START = "in its first moments"
    MIDDLE = "after some bytes"
    JOURNAL = "while the journal is replaced"
    REPLACED = "just after the journal was replaced"
    END = "in the last bytes"
    COMPLETE = "when all had come"


# COMPLETE is what becomes of any other when the download is faster.
WEIGHTS = {Instant.START: 4, Instant.MIDDLE: 6, Instant.JOURNAL: 4, Instant.REPLACED: 2, Instant.END: 4}


@dataclass
class Stand:
    """One origin, one store, and one downloader after the other."""

    origin: Origin
    home: Path
    random: random.Random
    layout: StoreLayout = field(init=False)
    environ: dict[str, str] = field(init=False)
    losses: list[tuple[int, Instant]] = field(default_factory=list)
    downloads: int = 0

    def __post_init__(self) -> None:
        pinned = entry(
            verification_sha256=self.origin.sha256,
            size_bytes=self.origin.size,
            required_disk_space_gb=self.origin.size / 10**9,
            download_source=f"{self.origin.url}/org/tiny/resolve/main/tiny.gguf",
        )
        settings = Downloader(self.home, pinned, environ={"R3MES_ALLOW_HTTP_SOURCES": self.origin.hosts})
        self.layout, self.environ = settings.layout, settings.environ

    @property
    def log(self) -> Path:
        return self.home / "downloader.log"

    def durable(self) -> Ranges:
        journal = read_journal(self.layout, self.origin.sha256)
        return journal.ranges if journal else ()

    def is_complete(self) -> bool:
        journal = read_journal(self.layout, self.origin.sha256)
        return journal is not None and journal.complete

    def kill_once(self) -> None:
        """Start a downloader, kill it at a random instant, and judge what that cost."""
        before, sent_before = self.durable(), self.origin.sent
        process = start_downloader(self.environ, self.home, self.log)
        try:
            instant = self._wait(process, self._draw())
        finally:
            process.kill()
            process.join()
        wait_until(lambda: self.origin.counters["open"] == 0, STUCK_SECONDS, "the origin to see the connections end")
        after = self.durable()
        lost = (self.origin.sent - sent_before) - (covered(after) - covered(before))
        self.losses.append((lost, instant))
        assert covered(before) <= covered(after), f"durable ranges shrank: {before} to {after} ({instant})"
        assert lost <= MAX_LOSS, f"{lost / MIB:.1f} MiB lost by a kill {instant.value}: {before} to {after}"
        self._check_bytes(after, before)

    def finish(self) -> None:
        """If all has come: the digest is right, and the next download begins."""
        if not self.is_complete():
            return
        assert file_digest(self.layout.data(self.origin.sha256)) == self.origin.sha256
        self.layout.journal(self.origin.sha256).unlink()
        self.layout.data(self.origin.sha256).unlink()
        self.downloads += 1

    def run_to_completion(self) -> None:
        """Let one more process do the rest, undisturbed."""
        process = start_downloader(self.environ, self.home, self.log)
        try:
            wait_until(self.is_complete, STUCK_SECONDS, "the rest to come")
        finally:
            process.kill()
            process.join()
        self.finish()

    def _draw(self) -> tuple[Instant, Callable[[], bool]]:
        """Draw an instant, and the condition that tells when it has come."""
        left = self.origin.size - covered(self.durable())
        sent = self.origin.sent
        instant = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        match instant:
            case Instant.START:
                until = time.monotonic() + self.random.uniform(0, 0.4)
                return instant, lambda: time.monotonic() >= until
            case Instant.END:
                wanted = max(0, left - self.random.randrange(16 * MIB))
                return instant, lambda: self.origin.sent - sent >= wanted
            case Instant.MIDDLE:
                wanted = self.random.randrange(left + 1)
                return instant, lambda: self.origin.sent - sent >= wanted
            case _:
                number = self.random.randrange(1, 4)
                return instant, _ReplacementWatch(self.layout, self.origin.sha256, number, instant)

    def _wait(self, process: BaseProcess, drawn: tuple[Instant, Callable[[], bool]]) -> Instant:
        """Return when the instant has come, or COMPLETE when the download was faster."""
        instant, has_come = drawn
        never = threading.Event()
        deadline = time.monotonic() + STUCK_SECONDS
        while not has_come():
            assert process.is_alive(), f"the downloader ended by itself:\n{self.log.read_text()[-2000:]}"
            if self.is_complete():
                return Instant.COMPLETE
            assert time.monotonic() < deadline, f"stuck before {instant}:\n{self.log.read_text()[-2000:]}"
            never.wait(POLL_SECONDS)
        return instant

    def _check_bytes(self, ranges: Ranges, known: Ranges) -> None:
        """What the journal newly calls durable is what the origin has."""
        if not ranges:
            return
        with self.layout.data(self.origin.sha256).open("rb") as data, self.origin.path.open("rb") as right:
            for start, end in without(ranges, known):
                for offset in range(start, end, MIB):
                    count = min(MIB, end - offset)
                    got, wanted = (os.pread(file.fileno(), count, offset) for file in (data, right))
                    assert got == wanted, f"wrong bytes between {offset} and {offset + count}"


class _ReplacementWatch:
    """Tells when the journal is being replaced, or has been, for the n-th time; looks at the directory alone."""

    def __init__(self, layout: StoreLayout, digest: str, number: int, instant: Instant) -> None:
        self._directory = layout.incoming_dir(digest)
        self._journal = layout.journal(digest)
        self._left = number
        self._is_temporary_enough = instant is Instant.JOURNAL
        self._inode = self._journal_inode()

    def __call__(self) -> bool:
        inode = self._journal_inode()
        if inode not in {self._inode, 0}:
            self._inode, self._left = inode, self._left - 1
        if self._left == 1 and self._is_temporary_enough and self._directory.exists():
            return any(path.name.startswith(".journal.json.") for path in self._directory.iterdir())
        return self._left == 0

    def _journal_inode(self) -> int:
        try:
            return self._journal.stat().st_ino
        except FileNotFoundError:
            return 0


def without(ranges: Ranges, known: Ranges) -> Iterator[tuple[int, int]]:
    """Yield the parts of `ranges` that are not in `known`."""
    for start, end in ranges:
        for known_start, known_end in known:
            if start < known_end and known_start < end:
                if start < known_start:
                    yield start, known_start
                start = max(start, known_end)  # noqa: PLW2901 - what is left of this range
        if start < end:
            yield start, end


def say(line: str) -> None:
    """Tell pytest's captured output, which a failure shows."""
    sys.stdout.write(f"{line}\n")


def kill_at_random(home: Path, *, size: int, kills: int) -> None:
    """Kill `kills` downloaders over as many downloads as that takes, and let the last one finish."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    say(f"KILL_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - draws instants and bytes, protects nothing
    file = home / "origin.bin"
    with file.open("wb") as target:
        for offset in range(0, size, MIB):
            target.write(chance.randbytes(min(MIB, size - offset)))
    with Origin(file, send_buffer=SEND_BUFFER) as origin:
        origin.behave(Behaviour(together=TOGETHER))
        stand = Stand(origin, home / "host", chance)
        begun = time.monotonic()
        for _ in range(kills):
            stand.kill_once()
            stand.finish()
        stand.run_to_completion()
        total = origin.sent
    file.unlink()
    wasted = total - stand.downloads * size
    counted = Counter(instant.value for _, instant in stand.losses)
    worst = {i.value: round(max(lost for lost, of in stand.losses if of is i) / MIB, 1) for _, i in stand.losses}
    say(f"{kills} kills, {stand.downloads} downloads, {time.monotonic() - begun:.0f} s: {dict(counted)}")
    say(f"lost per kill: {wasted / kills / MIB:.1f} MiB on average; at most, in MiB: {worst}")
    assert wasted <= kills * MAX_LOSS
    assert stand.downloads >= 1


@pytest.mark.slow
def test_eight_kills_lose_little_and_every_download_ends_right(tmp_path: Path) -> None:
    kill_at_random(tmp_path, size=192 * 10**6, kills=8)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_little_and_every_download_ends_right(tmp_path: Path) -> None:
    kill_at_random(tmp_path, size=512 * 10**6, kills=200)
