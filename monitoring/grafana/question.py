"""What a dashboard is made of: questions with their queries. Data alone; `generate.py` draws it.

A panel's title is the question. Colours come from thresholds only, and only where a value is good or bad by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stack", "number", "bars", "table"]

# Miners of this host and of those whose Prometheus is asked, as the variable at the top of the dashboard says.
CHOSEN = '{instance=~"$miner"}'
BACKENDS = 'proxy=~"miners|model_.*"'


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and the name of its series; a table's and a number's query is asked once, for now."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One panel. `width` of 24 and `height` in Grafana's grid; `steps` are (from, colour), the first from anywhere.

    `alerts` are those of prometheus/rules/alerts.yml that watch the same; `gpu`: only with one is there data. `words`
    are shown in place of values, `silence` where there is no data, because then nothing is wrong.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "lines"
    width: int = 12
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ()
    alerts: tuple[str, ...] = ()
    gpu: bool = False
    columns: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    questions: tuple[Question, ...]
    chooses_miners: bool = False


BAD_ABOVE_ZERO = ((None, "green"), (1.0, "red"))
GOOD_ABOVE_ZERO = ((None, "red"), (1.0, "green"))


def quantiles(metric: str, *wanted: float) -> tuple[Query, ...]:
    """Return queries for quantiles of a histogram of the chosen miners."""
    rate = f"sum by (le) (rate({metric}_bucket{CHOSEN}[$__rate_interval]))"
    return tuple(Query(f"histogram_quantile({share}, {rate})", f"{share * 100:g} % within") for share in wanted)


def within_a_day(counter: str) -> str:
    """Return what a counter counted in 24 hours, per series, what came before the first scrape included.

    increase() does not see that; a process that is younger than a day has counted nothing else.
    """
    grown = f"increase({counter}[24h])"
    young = f"({counter} and on (job, instance) time() - process_start_time_seconds < 86400)"
    return f"({grown} >= {young} or {young} or {grown})"
