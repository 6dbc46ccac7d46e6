"""`make bench-image`: llama.cpp as the miner's image has it, beside the wheel that was compiled for this machine.

The image's kernels are for every processor, and the best of them are loaded; nothing may be lost by that. Both compute
in turns, in one run: a processor that is slower for some minutes is so for both. It needs the image `r3mes-miner`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import Judged, keep, machine, table
from launcher.demo.places import find_model_file

ROUNDS = 10
CHILD = Path(__file__).with_name("kernels_child.py")
HEAD = ("figure", "image, tokens/s", "wheel, tokens/s", "all rounds of the image", "all rounds of the wheel")
LEAST = 0.97  # of the wheel's; rounds of one and the same differ by more


class Contestant:
    """A child that waits for its turn."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("no pipes")  # asked for above; said for the types
        self._to, self._from = self._process.stdin, self._process.stdout

    def round(self) -> dict[str, Any]:
        """Let it compute once and return what it found."""
        self._to.write("\n")
        self._to.flush()
        line = self._from.readline()
        if not line:
            raise SystemExit("a contestant ended; its words are above")
        return dict(json.loads(line))

    def end(self) -> None:
        """Let it go."""
        self._to.close()
        self._process.wait(timeout=30)


def contestants(image: str, threads: int) -> dict[str, Contestant]:
    """Start both."""
    model = find_model_file()
    mounts = ["-v", f"{model}:/model.gguf:ro", "-v", f"{CHILD}:/kernels_child.py:ro"]
    docker = ["docker", "run", "--rm", "--interactive", "--network", "none", *mounts, image]
    repository = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return {
        "image": Contestant([*docker, "python", "/kernels_child.py", "/model.gguf", str(threads)], dict(os.environ)),
        "wheel": Contestant([sys.executable, str(CHILD), str(model), str(threads)], repository),
    }


def main() -> int:
    """Race, print, keep a whole run's results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--image", default="r3mes-miner")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    begun, before = datetime.now(UTC), machine()
    runners = contestants(options.image, threads)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    for number in range(options.rounds + 1):  # the first warms up
        for name in sorted(runners, reverse=bool(number % 2)):
            result = runners[name].round()
            if number:
                found[name].append(result)
        sys.stderr.write(f"round {number} of {options.rounds}\n")
    for runner in runners.values():
        runner.end()
    title = f"Kernels of the image, {threads} threads, {options.rounds} rounds, {begun:%Y-%m-%d %H:%M} UTC"
    lines, judged = report(found)
    paragraphs = [f"{before}.", table(HEAD, lines), *_features(found)]
    paragraphs.append(table(("what", "found", "target", "", "note"), [one.row() for one in judged]))
    sys.stdout.write("\n\n".join([title, *paragraphs]) + "\n")
    if options.rounds >= ROUNDS:
        keep(title, paragraphs)
    return 0


def report(found: dict[str, list[dict[str, Any]]]) -> tuple[list[tuple[str, ...]], list[Judged]]:
    """Return the table's rows, and each figure's ratio of medians."""
    rows, judged = [], []
    for figure in found["image"][0]["figures"]:
        rates = {name: [one["figures"][figure] for one in rounds] for name, rounds in found.items()}
        middle = {name: median(values) for name, values in rates.items()}
        listed = {name: ", ".join(f"{value:.0f}" for value in values) for name, values in rates.items()}
        rows.append((figure, f"{middle['image']:.1f}", f"{middle['wheel']:.1f}", listed["image"], listed["wheel"]))
        judged.append(Judged(f"{figure}, image / wheel", middle["image"] / middle["wheel"], LEAST, at_least=True))
    return rows, judged


def _features(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [f"What the {name} uses: `{rounds[0]['features'].strip()}`" for name, rounds in found.items()]


if __name__ == "__main__":
    sys.exit(main())
