"""What a person sees while long work runs, on stderr: bars on a terminal, plain lines anywhere else.

Off a terminal nothing moves: no carriage return, no escape sequence, a line when something began, at each quarter, and
every few seconds of a slow one. Both kinds may be called from several threads, and neither lets a file's name write to
a person's terminal.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

QUIET_SECONDS = 10.0
QUARTERS = 4
# In columns: what a stage needs for one line.
WIDTH_WITH_BARS = 64
WIDTH_WITH_BYTES = 40


class Display(Protocol):
    """`say` a line; `progress` of a named stage in bytes; `pause` ends all bars, so that other output may come."""

    def say(self, line: str) -> None:
        """Show one line, or several."""

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is; the first call begins it."""

    def pause(self) -> None:
        """End the bars as they are."""


def choose_display() -> Display:
    """Return the display that fits stderr."""
    console = Console(stderr=True)
    if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return TerminalDisplay(console)
    return PlainDisplay()


class PlainDisplay:
    """Lines alone, each written in one piece."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[int, float]] = {}

    def say(self, line: str) -> None:
        """Write a line."""
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Write a line when a quarter is reached, or nothing was said for a while."""
        now = time.monotonic()
        quarter = QUARTERS * done // total if total else 0
        last_quarter, last_at = self._shown.get(stage, (-1, now))
        if quarter > last_quarter or now - last_at >= QUIET_SECONDS:
            self._shown[stage] = (max(quarter, last_quarter), now)
            self.say(describe_progress(stage, done, total))

    def pause(self) -> None:
        """Nothing moves; a stage of the same name begins anew."""
        self._shown.clear()


class TerminalDisplay:
    """One bar a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Move the stage's bar."""
        if self._progress is None:
            self._progress = self._bars()
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def pause(self) -> None:
        """Leave the bars where they stand and give the cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks.clear()

    def _bars(self) -> Progress:
        columns: list[ProgressColumn] = [TextColumn("{task.description:<14}"), TextColumn("{task.percentage:>3.0f} %")]
        if self._console.width >= WIDTH_WITH_BYTES:
            columns.append(DownloadColumn())
        if self._console.width >= WIDTH_WITH_BARS:
            columns.insert(1, BarColumn())
            columns.append(TransferSpeedColumn())
        return Progress(
            *columns,
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def describe_progress(stage: str, done: int, total: int | None) -> str:
    """Say in one line how far a stage is."""
    if not total:
        return f"{stage}: {decimal(done)}"
    return f"{stage}: {decimal(done)} of {decimal(total)} ({100 * done // total} %)"


def printable(text: str) -> str:
    """Return text of which nothing but line ends and tabs acts on a terminal."""
    return "".join(each if each in "\n\t" or each.isprintable() else ascii(each)[1:-1] for each in text)


def short_path(path: os.PathLike[str] | str) -> str:
    """Return a path with the home directory as `~`."""
    text, home = os.fspath(path), os.path.expanduser("~")  # noqa: PTH111 - compared as text
    return "~" + text[len(home) :] if home != "/" and text.startswith(home + "/") else text
