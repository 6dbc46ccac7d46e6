"""The figures as a table, and as a document for a script. Pure."""

from __future__ import annotations

import os
import platform

from rich.table import Table

from launcher.bench.figures import Figure, Measured, Missing, meanings, number
from launcher.display import printable
from launcher.doctor.blanking import Blanker
from launcher.doctor.subject import Subject
from shared.version import __version__

DOCUMENT_VERSION = 1
_HEADINGS = ("", "median", "min", "max", "unit", "rounds")


def lines(measured: Measured, blanker: Blanker) -> list[str]:
    """Return what is said beside the table: how it was measured, what is missing, what it means."""
    said = [f"{each.name}: {each.how}" for each in measured if isinstance(each, Figure)]
    said += [_absent(each) for each in measured if isinstance(each, Missing)]
    return [printable(blanker.text(line)) for line in [*said, *meanings(measured)]]


def _absent(missing: Missing) -> str:
    return f"{missing.name}: not measured: {missing.why}" + (
        f"; next: {missing.next_step}" if missing.next_step else ""
    )


def table(measured: Measured) -> Table:
    """Return the table for a terminal."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        drawn.add_column(heading, justify="left" if heading in {"", "unit"} else "right")
    for row in rows(measured):
        drawn.add_row(*row)
    return drawn


def plain(measured: Measured) -> str:
    """Return the table as text alone."""
    cells = [_HEADINGS, *rows(measured)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    return "".join(
        "  ".join(
            cell.ljust(width) if column in {0, 4} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        + "\n"
        for row in cells
    )


def rows(measured: Measured) -> list[tuple[str, ...]]:
    """Return a row for each figure."""
    return [
        (
            each.name,
            number(each.median),
            number(min(each.values)),
            number(max(each.values)),
            each.unit,
            str(len(each.values)),
        )
        for each in measured
        if isinstance(each, Figure)
    ]


def document(measured: Measured, subject: Subject, blanker: Blanker) -> dict[str, object]:
    """Return what `--json` prints; its keys are a contract."""
    content: dict[str, object] = {
        "version": DOCUMENT_VERSION,
        "r3mes": __version__,
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "processors": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg()[0],
        },
        "store": str(subject.layout.root),
        "offline": subject.offline,
        "figures": [each.as_data() for each in measured if isinstance(each, Figure)],
        "missing": [each.as_data() for each in measured if isinstance(each, Missing)],
        "meaning": meanings(measured),
    }
    blanked = blanker.data(content)
    return blanked if isinstance(blanked, dict) else {}
