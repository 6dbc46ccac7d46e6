"""What a benchmark found: rows with targets, facts about the machine, and the page that keeps them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_TITLE = """# Results of the benchmarks

Each whole run of `make bench` or `make bench-miner` adds a section; the newest is the last.
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure against its target, a ratio where it has no unit; `note` says what a reader must know to believe it."""

    what: str
    value: float
    target: float
    unit: str = ""
    note: str = ""
    # False: what the figure is about did not happen, so that it says nothing.
    happened: bool = True
    # More is better: the target is the least, not the most.
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.happened and (self.value >= self.target if self.at_least else self.value <= self.target)

    @property
    def verdict(self) -> str:
        return "met" if self.met else "**missed**" if self.happened else "**not shown**"

    def row(self) -> tuple[str, ...]:
        digits = 0 if self.unit not in {"", "s"} else 2
        value = f"{self.value:.{digits}f} {self.unit}".rstrip()
        return (
            self.what,
            value,
            f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}".rstrip(),
            self.verdict,
            self.note,
        )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned, so that it reads well in a terminal, too."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    drawn = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([drawn[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *drawn[1:]])


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` lies on."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown file system"


def machine() -> str:
    """Return cores, memory, kernel, and how busy the machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{cores} cores, {memory:.0f} GiB, Linux {platform.release()}, load average {load}"


def keep(title: str, paragraphs: Iterable[str]) -> None:
    """Append a section to the page."""
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _TITLE
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    section = "\n\n".join([f"## {title}, {moment}", *paragraphs])
    RESULTS.write_text(f"{before.rstrip()}\n\n{section}\n", encoding="utf-8")
