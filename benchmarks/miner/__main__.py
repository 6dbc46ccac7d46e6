"""`make bench-miner`: our miner beside llama-server and llama_cpp.server, with llama-batched-bench as the limit.

In each round all servers are started, and take each level one right after the other: a machine that is slower for some
minutes is so for all of them. The order turns from level to level and from round to round (A B C, C A B).
Levels: 1, 4, 16 clients in a closed loop (75 + 64 tokens); `prompts`, 4 clients with 512 tokens; `shared`, 16 clients
with one system prompt of 1,500 tokens; `burst`, 16 at once with a new one; `stall`, streams while a long prompt comes.

`python -m benchmarks.miner --rounds 1 --only 16,burst --servers ours,llama-server` is a look in minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.miner import levels
from benchmarks.miner.client import Client
from benchmarks.miner.judging import Found, Measured
from benchmarks.miner.levels import LEVELS, Figures, Level
from benchmarks.miner.prompts import Prompts, one_token_words
from benchmarks.miner.servers import BATCHED_BENCH, SERVERS, Address, Contestant, batched_bench, prepare, version
from benchmarks.results import RESULTS, keep, machine, table
from shared.log import configure_logging
from tests.integration.miner.stand import model_file

ROUNDS = 3
BUILD = Path(__file__).parents[2] / "build"
NAMES = (*(server.name for server in SERVERS), BATCHED_BENCH)
WARM_UP = Level("warm-up", 2, 1, answer=16)


class Course:
    """The levels that are run, and the words that prompts are made of."""

    def __init__(self, wanted: Sequence[Level], seed: int) -> None:
        self._levels = wanted
        self._seed = seed
        self._words = one_token_words(model_file())

    def run(self, contestants: Sequence[str], number: int) -> Iterator[Measured]:
        """Take all contestants through every level once."""
        with ExitStack() as running:
            addresses = {
                server.name: running.enter_context(server.running()) for server in SERVERS if server.name in contestants
            }
            for place, level in enumerate(self._levels):
                for name in turned(contestants, number + place):
                    if name == BATCHED_BENCH:
                        yield from self._limit(level, number)
                    elif level.name not in (server := by_name(name)).left_out:
                        yield self._level(server, addresses[name], level, number)

    def _level(self, server: Contestant, address: Address, level: Level, number: int) -> Measured:
        async def loaded() -> tuple[float, Figures]:
            async with Client(address.url, address.model) as client:
                await levels.measure(client, WARM_UP, self._prompts(number, server.name, f"before {level.name}"))
                load = os.getloadavg()[0]
                return load, await levels.measure(client, level, self._prompts(number, server.name, level.name))

        load, figures = asyncio.run(loaded())
        return Measured(number, server.name, level.name, load, figures)

    def _prompts(self, *names: object) -> Prompts:
        return Prompts(self._words, "/".join(map(str, (self._seed, *names))))

    def _limit(self, level: Level, number: int) -> Iterator[Measured]:
        """Measure what llama.cpp gives by itself where the level is plain; prompts come first, then all generate."""
        if level.name != str(level.clients):
            return
        load = os.getloadavg()[0]
        for clients, rate in batched_bench(level.prompt, level.answer, [level.clients]).items():
            yield Measured(number, BATCHED_BENCH, str(clients), load, Figures(rate, 0.0, None, 0, 0, 0.0))


def by_name(name: str) -> Contestant:
    """Return the server of that name."""
    return next(server for server in SERVERS if server.name == name)


def turned(names: Sequence[str], number: int) -> list[str]:
    """Return the order of a turn, counted from 0: each begins with the one that came last in the one before."""
    by = -number % len(names)
    return [*names[by:], *names[:by]]


def line(found: Measured) -> str:
    """Return what is printed as soon as it is measured."""
    figures = found.figures
    parts = [f"  load {found.load:4.1f}  {found.server:17}{found.level:8}{figures.tokens_per_second:7.1f} tokens/s"]
    if figures.pieces:
        parts.append(f"first token {figures.first_token:.3f} s")
        parts.append(f"{figures.tokens} tokens in {figures.pieces} pieces")
        parts.append(f"client {figures.client_cpu:.0%} of a core")
    if figures.gap is not None:
        parts.append(f"p99 between tokens {figures.gap:.3f} s")
    return ", ".join(parts)


def write_raw(path: Path, facts: str, found: Sequence[Measured]) -> None:
    """Write all that was measured until now."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "measured": [asdict(one) for one in found]}, indent=1) + "\n")


def chosen(known: Sequence[str], text: str) -> list[str]:
    """Return the names of a comma-separated list, in the order of `known`; raises ArgumentTypeError for others."""
    names = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(names) - set(known)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; known are {', '.join(known)}")
    return [name for name in known if name in names]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miner", description=__doc__.split("\n")[0])
    all_levels = [level.name for level in LEVELS]
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", type=lambda text: chosen(all_levels, text), default=all_levels, help="levels")
    parser.add_argument("--servers", type=lambda text: chosen(NAMES, text), default=list(NAMES))
    parser.add_argument("--requests", type=int, help="at most so many of each client")
    parser.add_argument("--seed", type=int, default=16, help="what the prompts are drawn from")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, keep them; 0 when every target is met."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    configure_logging("bench", "warning")
    prepare(options.servers)
    wanted = [level for level in LEVELS if level.name in options.only]
    if options.requests:
        wanted = [replace(level, requests=min(options.requests, level.requests)) for level in wanted]
    course = Course(wanted, options.seed)
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    raw = BUILD / f"bench-miner-{moment}.json"
    before = f"{machine()}; {version()}"
    print(before, flush=True)
    found: list[Measured] = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        for one in course.run(options.servers, number):
            print(line(one), flush=True)
            found.append(one)
            write_raw(raw, before, found)
    judged = Found(found).judged()
    facts = f"{before}. Load average {machine().rpartition('load average ')[2]} after."
    paragraphs = [facts, Found(found).medians()]
    if judged:
        paragraphs.append(table(("what", "found", "target", "", "note"), [figure.row() for figure in judged]))
    title = f"Miner, SmolLM2-135M Q4_1 on 2 threads, {options.rounds} rounds"
    print("\n" + "\n\n".join([title, *paragraphs, f"all figures: {raw}"]))
    is_whole = len(wanted) == len(LEVELS) and len(options.servers) == len(NAMES) and not options.requests
    if is_whole and options.rounds >= ROUNDS:
        keep(title, paragraphs)
    else:
        print(f"fewer rounds, levels, servers or requests than all: not kept in {RESULTS.name}")
    return 0 if all(figure.met for figure in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
