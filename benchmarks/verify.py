"""`make bench-verify`: what verification costs, and how long one waits for it after the last byte.

The real verifier process with a real Redis, over a store on a tmpfs and one on a disk. In each round, in turn: a pass
that hashes, one that copies, one that does both, over a complete file in incoming; that file verified in one pass
afterwards; on a disk the same once more with nothing of it in the page cache; and a download that is followed while a
process plays the downloader (on a tmpfs at 400 MB/s, on a disk at half of what the disk takes with two copies). Ratios
are of figures of one round, and their median is judged. CPU seconds of the verifier are from /proc.

`python -m benchmarks.verify --size 512e6 --rounds 1` is a look in a minute.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.download import MEMORY, ROOM_TO_SPARE, free_bytes, random_file, show
from benchmarks.passes import (
    LAST_BYTES,
    Cost,
    cached_share,
    copy_alone,
    drop_from_cache,
    fsync_of_the_last,
    hash_alone,
    hash_and_copy,
    rate_of_two_copies,
    timed,
)
from benchmarks.results import Judged, file_system, machine, table
from benchmarks.verify_stand import Followed, Stand, a_stand

ROUNDS = 5
SIZE = 2 * 10**9
RATE_IN_MEMORY = 400e6
LEAST_RATE_SHARE = 0.95  # of what was asked for, else the download was not the one that is judged
WAIT_SECONDS = 0.3
AFTERWARDS_SECONDS_PER_GB = 0.6  # a pass afterwards takes at least this, else there was nothing to win
MAX_RSS = 100e6
MAX_BY_HASHING, MAX_BY_ALL_THREE, MAX_BY_PASSES = 1.3, 1.1, 1.25


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes over one complete file: by us, then the verifier's; and how much of it was in the page cache before."""

    hashing: Cost
    copying: Cost
    both: Cost
    verified: Cost
    cached: float | None


@dataclass(frozen=True, slots=True)
class Round:
    """All that was measured in one round."""

    warm: Passes
    cold: Passes | None
    followed: Followed
    last_fsync: float


def passes(stand: Stand, *, cold: bool) -> Passes:
    """Take each way once over the file as it lies in incoming; `cold`: nothing of it in the page cache, each time."""
    stand.leave_complete()
    directory = stand.store.layout.verified
    ready: Callable[[], None] = (lambda: drop_from_cache(stand.data)) if cold else (lambda: None)
    costs = []
    for work in (
        lambda: hash_alone(stand.data),
        lambda: copy_alone(stand.data, directory),
        lambda: hash_and_copy(stand.data, directory),
    ):
        ready()
        costs.append(timed(work))
    ready()
    cached = cached_share(stand.data)
    verified = stand.verify_complete()
    stand.clear()
    return Passes(*costs, verified, cached)


def one_round(stand: Stand, rate: float, *, on_disk: bool) -> Round:
    """Measure everything once."""
    warm = passes(stand, cold=False)
    cold = passes(stand, cold=True) if on_disk else None
    last_fsync = fsync_of_the_last(stand.store.layout.verified) if on_disk else 0.0
    followed = stand.follow(rate)
    stand.clear()
    print(
        f"  hashing {warm.hashing.wall:.2f} s, copying {warm.copying.wall:.2f} s, both {warm.both.wall:.2f} s; "
        f"verified in {warm.verified.wall:.2f} s; followed at {followed.rate / 1e6:.0f} MB/s: "
        f"{followed.share:.1%} done before, verified {followed.seconds:.3f} s after",
        flush=True,
    )
    return Round(warm, cold, followed, last_fsync)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def judge(rounds: Sequence[Round], rate: float, size: int, peak_rss: float, *, on_disk: bool) -> list[Judged]:
    """Return every figure with its target."""
    last_fsync = median(r.last_fsync for r in rounds)
    came = min(r.followed.rate for r in rounds)
    afterwards = median(r.warm.verified.wall for r in rounds)
    has_come = came >= LEAST_RATE_SHARE * rate
    note = (
        f"{median(r.followed.since_last_byte for r in rounds):.2f} s after the last byte was written; "
        f"{min(r.followed.share for r in rounds):.1%} or more copied before; "
        f"one pass afterwards: {afterwards:.2f} s"
    )
    wait = Judged(
        f"from complete to verified, followed at {rate / 1e6:.0f} MB/s",
        median(r.followed.seconds for r in rounds),
        round(WAIT_SECONDS + last_fsync, 2),
        "s",
        f"{note}; {last_fsync:.2f} s of the target is one fsync of {LAST_BYTES >> 20} MiB" if on_disk else note,
        happened=has_come and afterwards >= AFTERWARDS_SECONDS_PER_GB * size / 1e9,
    )

    def cpu(what: str, taken: Callable[[Round], float]) -> Judged:
        by_hashing = median(taken(r) / r.warm.hashing.cpu for r in rounds)
        by_both = median(taken(r) / r.warm.both.cpu for r in rounds)
        per_gb = f"{median(taken(r) for r in rounds) / size * 1e9:.2f} s per GB"
        if on_disk:
            label, other = f"CPU, {what} / hashing alone", f"{per_gb}; {by_both:.2f} of reading, hashing and writing"
            return Judged(label, by_hashing, MAX_BY_HASHING, note=other)
        label, other = f"CPU, {what} / reading, hashing and writing", f"{per_gb}; {by_hashing:.2f} of hashing alone"
        return Judged(label, by_both, MAX_BY_ALL_THREE, note=other)

    def whole(what: str, taken: Callable[[Round], Passes]) -> Judged:
        found = [taken(r) for r in rounds]
        ratio = median(p.verified.wall / (p.hashing.wall + p.copying.wall) for p in found)
        shares = [p.cached for p in found if p.cached is not None]
        cached = f"{median(shares):.0%} of it in the page cache" if shares else "page cache not looked at: no fincore"
        both = median(p.verified.wall / p.both.wall for p in found)
        label = f"complete file, {what} / (hashing + copying)"
        return Judged(label, ratio, MAX_BY_PASSES, note=f"{cached}; {both:.2f} of one pass that does both in turn")

    judged = [
        wait,
        cpu("followed", lambda r: r.followed.cpu),
        cpu("complete file", lambda r: r.warm.verified.cpu),
        whole("just arrived", lambda r: r.warm),
    ]
    if on_disk:
        judged.append(whole("cold", lambda r: r.cold or r.warm))
    return [*judged, Judged("peak memory of the verifier", peak_rss / 1e6, MAX_RSS / 1e6, "MB", "over all rounds")]


def times(rounds: Sequence[Round], size: int) -> str:
    """Return the table of what was measured."""
    gb = size / 1e9
    rows = []

    def add(way: str, walls: Sequence[float], cpus: Sequence[float]) -> None:
        shown = ", ".join(f"{wall:.2f}" for wall in walls)
        rows.append((way, f"{median(walls):.2f} s", shown, f"{median(cpus) / gb:.2f} s"))

    for state, found in (("just arrived", [r.warm for r in rounds]), ("cold", [r.cold for r in rounds if r.cold])):
        for way in ("hashing", "copying", "both", "verified") if found else ():
            costs = [getattr(p, way) for p in found]
            name = {"both": "hashing and copying in turn", "verified": "verified in one pass"}.get(way, way)
            add(f"{name}, {state}", [cost.wall for cost in costs], [cost.cpu for cost in costs])
    add("followed, from complete", [r.followed.seconds for r in rounds], [r.followed.cpu for r in rounds])
    return table(("way", "median", "all rounds, s", "CPU per GB"), rows)


def measure(directory: Path, notes: Path, content: Path, sha256: str, rounds: int) -> tuple[str, str, list[Judged]]:
    """Measure on one file system; return what was found out about it, the table of times and the judged figures."""
    size, on_disk = content.stat().st_size, file_system(directory) != "tmpfs"
    with a_stand(directory, notes, sha256, content) as stand:
        rate, facts = RATE_IN_MEMORY, ""
        if on_disk:
            taken = median(rate_of_two_copies(content, directory, size) for _turn in range(3))
            rate, facts = taken / 2, f"The disk takes two copies at {taken / 1e6:.0f} MB/s."
        found = []
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            found.append(one_round(stand, rate, on_disk=on_disk))
        return facts, times(found, size), judge(found, rate, size, stand.peak_rss(), on_disk=on_disk)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--size", type=lambda text: int(float(text)), default=SIZE, help="bytes")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--memory", type=Path, default=MEMORY, help="on a tmpfs, with room for three times the size")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, keep them; 0 when every target is met."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that gigabytes and processes are not left behind
    if free_bytes(options.memory) < 3 * options.size + ROOM_TO_SPARE:
        print(f"not enough room in {options.memory}: wanted three times the size", file=sys.stderr)
        return 1
    is_full = options.rounds >= ROUNDS and options.size >= SIZE
    all_met = True
    with (
        tempfile.TemporaryDirectory(prefix="r3mes-bench-", dir=options.memory) as home,
        tempfile.TemporaryDirectory(prefix="r3mes-bench-", dir=options.directory) as disk,
    ):
        content = Path(home) / "model.bin"
        sha256 = random_file(content, options.size)
        for directory in (Path(home), Path(disk)):
            notes = Path(disk) / f"notes-{directory.parent.name}"
            notes.mkdir()
            before, kind = machine(), file_system(directory)
            print(f"{options.size / 1e9:g} GB on {kind}; {before}")
            facts, measured, judged = measure(directory, notes, content, sha256, options.rounds)
            all_met &= all(figure.met for figure in judged)
            head = ("what", "found", "target", "", "note")
            said = f"{before} ({machine().rpartition('load average ')[2]} after). {facts}".strip()
            title = f"Verify, {options.size / 1e9:g} GB on {kind}, {options.rounds} rounds"
            show(title, [said, measured, table(head, [figure.row() for figure in judged])], is_full=is_full)
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
