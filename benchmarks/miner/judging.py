"""From what was measured to two tables: medians over the rounds with their ratios, and each target. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.miner.levels import Figures
from benchmarks.miner.servers import BATCHED_BENCH, LLAMA_SERVER, OURS
from benchmarks.results import Judged, table

TOKENS_PER_SECOND, FIRST_TOKEN, GAP = "tokens_per_second", "first_token", "gap"
UNITS = {TOKENS_PER_SECOND: "tokens/s", FIRST_TOKEN: "first token", GAP: "p99 between tokens"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One level on one server in one round; `load` is the machine's load average over one minute before it."""

    round: int
    server: str
    level: str
    load: float
    figures: Figures


@dataclass(frozen=True, slots=True)
class Target:
    """What our figure divided by another's has to be."""

    level: str
    figure: str
    other: str
    ratio: float
    at_least: bool


TARGETS = (
    *(Target(level, TOKENS_PER_SECOND, LLAMA_SERVER, 1.0, at_least=True) for level in ("1", "4", "16", "prompts")),
    *(Target(level, TOKENS_PER_SECOND, BATCHED_BENCH, 0.85, at_least=True) for level in ("1", "4", "16")),
    Target("shared", TOKENS_PER_SECOND, LLAMA_SERVER, 1.5, at_least=True),
    Target("burst", TOKENS_PER_SECOND, LLAMA_SERVER, 5.0, at_least=True),
    Target("burst", FIRST_TOKEN, LLAMA_SERVER, 0.2, at_least=False),
    Target("stall", GAP, LLAMA_SERVER, 0.5, at_least=False),
    Target("1", FIRST_TOKEN, LLAMA_SERVER, 1.1, at_least=False),
)


class Found:
    """All measurements of a run."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._measured = measured

    def values(self, server: str, level: str, figure: str) -> list[float]:
        """Return a figure's value of each round."""
        found = (getattr(m.figures, figure) for m in self._measured if (m.server, m.level) == (server, level))
        return [value for value in found if value is not None]

    def ratio(self, level: str, figure: str, other: str) -> float | None:
        """Return our median by the other's; None where one of them was not measured."""
        ours, theirs = self.values(OURS, level, figure), self.values(other, level, figure)
        return statistics.median(ours) / statistics.median(theirs) if ours and theirs else None

    def judged(self) -> list[Judged]:
        """Return each target of which both sides were measured."""
        rows = []
        for target in TARGETS:
            ratio = self.ratio(target.level, target.figure, target.other)
            if ratio is not None:
                what = f"{target.level}: {UNITS[target.figure]}, ours / {target.other}"
                rows.append(Judged(what, ratio, target.ratio, at_least=target.at_least))
        return rows

    def medians(self) -> str:
        """Return the table of medians, all rounds beside them, and our ratio to each other."""
        rows = []
        for level, server in dict.fromkeys((m.level, m.server) for m in sorted(self._measured, key=lambda m: m.level)):
            for figure, unit in UNITS.items():
                values = self.values(server, level, figure)
                if not values or (server == BATCHED_BENCH and figure != TOKENS_PER_SECOND):
                    continue
                ratio = None if server == OURS else self.ratio(level, figure, server)
                rows.append(
                    (
                        level,
                        unit,
                        server,
                        shown(statistics.median(values), figure),
                        ", ".join(shown(value, figure) for value in values),
                        "" if ratio is None else f"{ratio:.2f}",
                    )
                )
        rows.sort(key=lambda row: row[:2])
        return table(("level", "figure", "server", "median", "all rounds", "ours / it"), rows)


def shown(value: float, figure: str) -> str:
    """Write a figure with its unit."""
    return f"{value:.1f}" if figure == TOKENS_PER_SECOND else f"{value:.3f} s"
