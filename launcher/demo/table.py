"""The short table at the end: a table on a terminal, one `name: value` a line anywhere else."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from launcher.answer import AnswerTimes
from launcher.demo.stages import StageClock
from launcher.streams import write_data

Rows = list[tuple[str, str]]


def stage_rows(clock: StageClock, served_bytes: int, load_seconds: float, times: AnswerTimes) -> Rows:
    """Return what each stage took; `served_bytes` is what the origin sent."""
    downloaded, verified = clock.download_seconds, clock.verify_seconds
    rate = times.tokens_per_second
    if downloaded is None or clock.was_there:
        download = f"nothing ({decimal(served_bytes)} fetched): the verified file was there"
    else:
        speed = f" ({decimal(int(served_bytes / downloaded))}/s)" if downloaded > 0 else ""
        download = f"{downloaded:.1f} s for {decimal(served_bytes)}{speed}"
    return [
        ("download", download),
        ("verify", "nothing: its receipt is right" if verified is None else f"{verified:.1f} s after the last byte"),
        ("load", f"{load_seconds:.1f} s"),
        ("first token", f"{times.first_token_seconds:.2f} s"),
        ("speed", f"{rate:.1f} tokens/s" if rate else "one token: nothing to measure"),
    ]


def show_table(rows: Rows) -> None:
    """Write the table to stdout."""
    if not sys.stdout.isatty():
        write_data("".join(f"{name}: {value}\n" for name, value in rows))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table, markup=False, highlight=False)
