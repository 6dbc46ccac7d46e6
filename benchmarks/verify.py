"""What verification costs: beside hashing alone in the same run, and after the last byte of a followed download.

    python -m benchmarks.verify [--at DIRECTORY] [--mb 1024] [--rounds 5] [--rate 400]

Each round takes every way once, in turn, so that whatever else the machine does falls on all of them. Medians. CPU
seconds are the better measure on a machine that others use.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import resource
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from services.verifier.follower import Follower
from services.verifier.following import Following
from services.verifier.private_copy import PrivateCopy, open_private_copy
from services.verifier.verification import Outcome
from shared.log import configure_logging
from tests.support.slow_download import Download
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store, entry

MIB = 1024 * 1024
NEVER = threading.Event()


def make_source(path: Path, size: int) -> str:
    """Write `size` random bytes, durable and in the page cache; return their digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _piece in range(size // MIB):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def hash_alone(source: int) -> None:
    digest, buffer, done = hashlib.sha256(), bytearray(MIB), 0
    while count := os.preadv(source, [buffer], done):
        digest.update(memoryview(buffer)[:count])
        done += count


def copy(store: Store, source: int, size: int, *, direct: bool) -> PrivateCopy:
    """Read, hash and write as the verifier does, then fsync; without `direct` through the page cache."""
    with nullcontext() if direct else patch.object(PrivateCopy, "prefer_direct"):
        made = open_private_copy(store.layout, "0" * 64, size)
    made.fill(source, size=size, stop=NEVER, on_bytes=lambda _done: None)
    os.fsync(made.descriptor)
    return made


def hash_copy(made: PrivateCopy) -> None:
    """Read a copy as whoever loads it does: through a descriptor of its own."""
    descriptor = os.open(f"/proc/self/fd/{made.descriptor}", os.O_RDONLY)
    hash_alone(descriptor)
    os.close(descriptor)


class Clock:
    """Wall and CPU seconds of each way, round by round."""

    def __init__(self) -> None:
        self._taken: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def take(self, way: str, work: Callable[[], None]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self._taken[way].append((time.perf_counter() - wall, time.process_time() - cpu))

    def show(self, size: int) -> None:
        medians = {
            way: [statistics.median(column) for column in zip(*taken, strict=True)]
            for way, taken in self._taken.items()
        }
        base_wall, base_cpu = medians["hashing alone"]
        print(f"{'':44}{'wall s/GB':>10}{'ratio':>7}{'CPU s/GB':>10}{'ratio':>7}")
        for way, (wall, cpu) in medians.items():
            gb = size / 1e9
            print(f"{way:44}{wall / gb:10.2f}{wall / base_wall:7.2f}{cpu / gb:10.2f}{cpu / base_cpu:7.2f}")


def compare(store: Store, path: Path, size: int, rounds: int) -> None:
    clock = Clock()
    source = os.open(path, os.O_RDONLY)
    for _round in range(rounds):
        clock.take("hashing alone", lambda: hash_alone(source))
        for direct, way in ((False, "through the page cache"), (True, "as the verifier does")):
            made: list[PrivateCopy] = []
            clock.take(f"read, hash, write: {way}", lambda: made.append(copy(store, source, size, direct=direct)))  # noqa: B023
            clock.take(f"  then read that copy: {way}", lambda: hash_copy(made[0]))  # noqa: B023
            made[0].close()
    os.close(source)
    clock.show(size)


def follow(store: Store, path: Path, digest: str, rate: float) -> tuple[float, int]:
    """Let a download arrive at `rate` MB/s; return the seconds from complete to promoted, and the bytes followed."""
    verifier = make_verifier(store, CollectorRegistry())
    following = Following(store.layout, Follower(verifier), verifier.stop)
    following.start()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        download = Download(store, content, digest)  # type: ignore[arg-type]
        started, size = time.monotonic(), len(content)
        while download.received < size:
            time.sleep(0.05)
            came = int((time.monotonic() - started) * rate * 1e6)
            download.receive(min(size, download.received + 32 * MIB, came))
        with store.layout.data(digest).open("rb") as data:
            os.fdatasync(data.fileno())
        begun = verifier.copies.get(digest)
        followed = begun.copy.hashing.done if begun else 0
        download.complete()
    started = time.perf_counter()
    outcome = verifier.verify(digest)
    seconds = time.perf_counter() - started
    following.close()
    if outcome is not Outcome.PROMOTED:
        raise SystemExit(f"ended {outcome}")
    return seconds, followed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=Path(), help="a directory on the file system to measure")
    parser.add_argument("--mb", type=int, default=1024, help="size of the file in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=400.0, help="MB/s at which the followed download arrives")
    arguments = parser.parse_args()
    configure_logging("benchmark", "error")
    with tempfile.TemporaryDirectory(dir=arguments.at, prefix=".bench-verify-") as directory:
        path, size = Path(directory) / "source", arguments.mb * MIB
        digest = make_source(path, size)
        store = Store.make(Path(directory) / "models", entry(digest, required_disk_space_gb=size / 1e9))
        compare(store, path, size, arguments.rounds)
        seconds, followed = follow(store, path, digest, arguments.rate)
        print(
            f"\nfollowed at {arguments.rate:g} MB/s: {followed / size:.1%} copied before the last byte was announced, "
            f"promoted {seconds:.2f} s after it was complete"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB (the mapped source of the download included)")


if __name__ == "__main__":
    main()
