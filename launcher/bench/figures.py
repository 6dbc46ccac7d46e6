"""What was measured: figures with their spread, what is missing and why, what it means. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# The mission's own model: an 8B in four bits.
REFERENCE_BYTES = 4_900_000_000
_MINUTE, _HOUR = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over several rounds; `how` says what was done, the warm-up named."""

    name: str
    unit: str
    values: tuple[float, ...]
    how: str

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)

    def as_data(self) -> dict[str, object]:
        """Return it for a script."""
        return {
            "name": self.name,
            "unit": self.unit,
            "rounds": len(self.values),
            "min": min(self.values),
            "median": self.median,
            "max": max(self.values),
            "values": list(self.values),
            "how": self.how,
        }


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not measured, why, and how it could be."""

    name: str
    why: str
    next_step: str = ""

    def as_data(self) -> dict[str, object]:
        """Return it for a script."""
        return {"name": self.name, "why": self.why, "next_step": self.next_step}


Measured = Sequence[Figure | Missing]


def meanings(measured: Measured) -> list[str]:
    """Say what the figures mean for a person who waits."""
    median = {each.name: each.median for each in measured if isinstance(each, Figure)}
    said: list[str] = []
    if rate := median.get("link rate"):
        said.append(f"a 4.9 GB model downloads in about {duration(REFERENCE_BYTES / (rate * 1e6))} over one connection")
    if (hashing := median.get("hash")) and (writing := median.get("disk write")):
        reading = median.get("disk read", writing)
        slowest = min(hashing * 1e9, writing * 1e6, reading * 1e6)
        limit = {hashing * 1e9: "the processor", writing * 1e6: "writing"}.get(slowest, "reading")
        said.append(f"it is verified in at least {duration(REFERENCE_BYTES / slowest)}, which {limit} sets")
    if prefill := median.get("prefill"):
        said.append(f"a prompt of 1,000 tokens is read in about {duration(1000 / prefill)}")
    if decode := median.get("decode"):
        said.append(f"an answer of 200 words comes in about {duration(270 / decode)}, to one client alone")
    return said


def duration(seconds: float) -> str:
    """Say a time in words, with no more precision than it has."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"  # noqa: PLR2004  a digit less from there on
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004
