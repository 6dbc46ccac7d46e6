"""`make bench-download`: our downloader beside curl, aria2c and huggingface_hub, all from one origin to one disk.

(a) 50 MB/s per connection: against aria2c with eight connections, and hf_hub_download; (b) no cap: against curl;
(c) every 50th body reset in its middle: against ourselves undisturbed; and the peak memory, also for 8 GB.
Tools take turns within a round (A B C A B C ...), each into a new directory; a ratio is the median of the rounds'
ratios. What came is hashed after every run, outside the timed part.

`python -m benchmarks.download --size 512e6 --rounds 1 --no-large` is a look in a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.contestants import Aria2, Contestant, Curl, HfHubDownload, MissingToolError, Ours, Run, Task
from benchmarks.origin import MIB, Behaviour, file_digest
from benchmarks.results import RESULTS, Judged, file_system, keep, machine, table

ROUNDS = 5
SIZE = 2 * 10**9
PER_CONNECTION = 50e6
RESET_EVERY = 50
MAX_RSS = 200e6
LARGE_BYTES = 8 * 10**9
MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, where the origin's file is never read from a disk
ROOM_TO_SPARE = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Entry:
    """One tool under one behaviour of the origin."""

    label: str
    tool: Contestant
    behaviour: Behaviour


@dataclass
class Course:
    """An origin and a directory on the file system that is measured."""

    url: str
    cdn_url: str
    sha256: str
    size: int
    directory: Path
    resets: list[int] = field(default_factory=list)

    def run(self, entry: Entry) -> Run:
        """Download once, check what came, and leave the disk as it was."""
        home = Path(tempfile.mkdtemp(dir=self.directory))
        self._control(entry.behaviour)
        try:
            run = entry.tool.download(Task(self.url, self.cdn_url, self.sha256, self.size, home))
            if entry.behaviour.reset_every:
                self.resets.append(self._control(None)["resets"])
            if file_digest(run.file) != self.sha256:
                raise RuntimeError(f"{entry.label}: wrong bytes")
        finally:
            shutil.rmtree(home)
            settle(self.directory)
        memory = f", peak {run.peak_rss / 1e6:.0f} MB" if run.peak_rss else ""
        print(f"  {entry.label:28} {run.transfer:7.2f} s  (with its start {run.whole:.2f} s{memory})", flush=True)
        return run

    def race(self, entries: Sequence[Entry], rounds: int) -> dict[str, list[Run]]:
        """Let all take turns `rounds` times."""
        found: dict[str, list[Run]] = {entry.label: [] for entry in entries}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}")
            for entry in entries:
                found[entry.label].append(self.run(entry))
        return found

    def _control(self, behaviour: Behaviour | None) -> dict[str, int]:
        """Give the origin a behaviour, which clears its counters; or only read them."""
        data = None if behaviour is None else json.dumps(asdict(behaviour)).encode()
        with urllib.request.urlopen(f"{self.url}/control", data, timeout=10) as answer:  # noqa: S310 - loopback
            return dict(json.load(answer))


def settle(directory: Path) -> None:
    """Commit what was deleted, so that it costs the next one nothing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ratio(found: dict[str, list[Run]], ours: str, other: str, *, whole: bool = False) -> float:
    """Return the median over the rounds of our time by the other's."""
    pairs = zip(found[ours], found[other], strict=True)
    return statistics.median(
        (mine.whole / its.whole) if whole else (mine.transfer / its.transfer) for mine, its in pairs
    )


def judge(capped: dict[str, list[Run]], free: dict[str, list[Run]], aria2: str, resets: Sequence[int]) -> list[Judged]:
    """Return every ratio with its target; the note has the one that counts from the start of the processes."""
    wanted = [
        (capped, "ours, 50 MB/s per connection", aria2, 1.05),
        (capped, "ours, 50 MB/s per connection", "hf_hub_download", 0.25),
        (free, "ours, no cap", "curl, no cap", 1.15),
        (capped, "ours, 50 MB/s, resets", "ours, 50 MB/s per connection", 1.3),
        (free, "ours, no cap, resets", "ours, no cap", 1.3),
    ]
    judged = []
    for found, ours, other, target in wanted:
        note, happened = f"{ratio(found, ours, other, whole=True):.2f} from the start of the processes", True
        if "resets" in ours:
            note, happened = f"{note}; {min(resets)} to {max(resets)} resets a run", min(resets) > 0
        judged.append(Judged(f"{ours} / {other}", ratio(found, ours, other), target, note=note, happened=happened))
    peak = max(run.peak_rss or 0 for runs in (*capped.values(), *free.values()) for run in runs)
    return [*judged, Judged("peak memory, ours", peak / 1e6, MAX_RSS / 1e6, "MB", "the largest of all runs")]


def compare(course: Course, rounds: int, tools: dict[str, Contestant]) -> tuple[str, list[Judged]]:
    """Run (a), (b) and (c); return the table of times and the judged figures."""
    cap, free = Behaviour(per_connection=PER_CONNECTION), Behaviour()
    ours, aria2 = tools["ours"], tools["aria2"]
    print(f"capped at {PER_CONNECTION / 1e6:.0f} MB/s per connection")
    capped = course.race(
        [
            Entry("ours, 50 MB/s per connection", ours, cap),
            Entry(aria2.name, aria2, cap),
            Entry("hf_hub_download", tools["hf"], cap),
            Entry("ours, 50 MB/s, resets", ours, Behaviour(PER_CONNECTION, reset_every=RESET_EVERY)),
        ],
        rounds,
    )
    print("no cap")
    uncapped = course.race(
        [
            Entry("ours, no cap", ours, free),
            Entry("curl, no cap", tools["curl"], free),
            Entry("ours, no cap, resets", ours, Behaviour(reset_every=RESET_EVERY)),
        ],
        rounds,
    )
    rows = []
    for label, runs in {**capped, **uncapped}.items():
        seconds = statistics.median(run.transfer for run in runs)
        shown = ", ".join(f"{run.transfer:.2f}" for run in runs)
        whole = statistics.median(run.whole for run in runs)
        rows.append((label, f"{seconds:.2f} s", f"{course.size / seconds / 1e6:.0f} MB/s", shown, f"{whole:.2f} s"))
    head = ("tool", "median", "rate", "all rounds, s", "with the process's start")
    return table(head, rows), judge(capped, uncapped, aria2.name, course.resets)


@contextmanager
def serving(file: Path, sha256: str) -> Iterator[tuple[str, str]]:
    """Run the origin as a process of its own; yield the URLs of its hub and its CDN."""
    command = [sys.executable, "-m", "benchmarks.origin", "--file", str(file), "--sha256", sha256]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("the origin has no output")
        try:
            yield process.stdout.readline().strip(), process.stdout.readline().strip()
        finally:
            process.terminate()


def random_file(path: Path, size: int) -> str:
    """Write `size` random bytes; return their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for offset in range(0, size, 16 * MIB):
            block = os.urandom(min(16 * MIB, size - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free if path.is_dir() else 0


def large_file(directory: Path, home: Path) -> list[Judged]:
    """Take 8 GB of zeros, which cost the origin no room, and look at our memory."""
    if free_bytes(directory) < 2 * LARGE_BYTES + ROOM_TO_SPARE:
        print(f"no room for {LARGE_BYTES / 1e9:.0f} GB in {directory}: left out")
        return []
    print(f"{LARGE_BYTES / 1e9:.0f} GB, sparse at the origin")
    file = home / "large.bin"
    with file.open("wb") as target:
        target.truncate(LARGE_BYTES)
    sha256 = file_digest(file)
    with serving(file, sha256) as urls:
        run = Course(*urls, sha256, LARGE_BYTES, directory).run(Entry("ours, 8 GB", Ours(), Behaviour()))
    note = f"{LARGE_BYTES / run.transfer / 1e6:.0f} MB/s"
    return [Judged("peak memory, ours, 8 GB", (run.peak_rss or 0) / 1e6, MAX_RSS / 1e6, "MB", note)]


def show(title: str, paragraphs: Sequence[str], *, is_full: bool) -> None:
    """Print a section, and keep it if it is no mere look."""
    print("\n" + "\n\n".join([title, *paragraphs]))
    if is_full:
        keep(title, paragraphs)
    else:
        print(f"\nfewer than {ROUNDS} rounds or {SIZE / 1e9:g} GB: not kept in {RESULTS.name}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--size", type=lambda text: int(float(text)), default=SIZE, help="bytes")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--tmpfs", action="store_true", help="once more on a tmpfs")
    parser.add_argument("--no-large", action="store_true", help="without the 8 GB file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the tables, keep them; 0 when every target is met."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that gigabytes and processes are not left behind
    tools: dict[str, Contestant] = {"ours": Ours(), "aria2": Aria2(), "hf": HfHubDownload(), "curl": Curl()}
    try:
        versions = ", ".join(tool.version() for tool in tools.values())
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    in_memory = free_bytes(MEMORY) > options.size + ROOM_TO_SPARE
    is_full = options.rounds >= ROUNDS and options.size >= SIZE
    all_met = True
    with (
        tempfile.TemporaryDirectory(prefix="r3mes-bench-", dir=MEMORY if in_memory else options.directory) as home,
        tempfile.TemporaryDirectory(prefix="r3mes-bench-", dir=options.directory) as disk,
    ):
        file = Path(home) / "model.bin"
        sha256 = random_file(file, options.size)
        for directory in [Path(disk), *([Path(home)] if options.tmpfs and in_memory else [])]:
            before = machine()
            kind = file_system(directory)
            print(f"{options.size / 1e9:g} GB to {kind}; {before}")
            with serving(file, sha256) as urls:
                times, judged = compare(Course(*urls, sha256, options.size, directory), options.rounds, tools)
            if directory == Path(disk) and not options.no_large:
                judged += large_file(directory, Path(home))
            all_met &= all(figure.met for figure in judged)
            head = ("what", "found", "target", "", "note")
            facts = f"{before} ({machine().rpartition('load average ')[2]} after). {versions}."
            paragraphs = [facts, times, table(head, [figure.row() for figure in judged])]
            show(f"Download, {options.size / 1e9:g} GB to {kind}, {options.rounds} rounds", paragraphs, is_full=is_full)
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
