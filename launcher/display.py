"""What a person sees while long work runs, on stderr: bars on a terminal, plain lines anywhere else.

Off a terminal nothing moves: no carriage return, no escape sequence, a line when something began, at each quarter, and
every few seconds of a slow one. Both kinds may be called from several threads, and neither lets a file's name write to
a person's terminal.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from launcher.pace import Pace, describe_span

QUIET_SECONDS = 10.0
QUARTERS = 4
# In columns of the terminal: what a stage needs for one line, with more and more of what there is to say.
WIDTH_WITH_BYTES = 40
WIDTH_WITH_RATE = 50
WIDTH_WITH_TIME_LEFT = 60
WIDTH_WITH_BARS = 72
_MOST_BAR_WIDTH = 40


class Display(Protocol):
    """`say` a hint, `error` what went wrong; `progress` of a named stage in bytes, with its rate and the time left.

    `pause` ends all bars, so that other output may come.
    """

    def say(self, line: str) -> None:
        """Show one line, or several."""

    def error(self, line: str) -> None:
        """Show what went wrong, also to somebody who wants no hints."""

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is; the first call begins it."""

    def pause(self) -> None:
        """End the bars as they are."""


def choose_display(*, quiet: bool = False) -> Display:
    """Return the display that fits stderr; `quiet`: the one that shows errors alone."""
    if quiet:
        return QuietDisplay()
    console = Console(stderr=True)
    if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return TerminalDisplay(console)
    return PlainDisplay()


class QuietDisplay:
    """Errors alone."""

    def say(self, line: str) -> None:
        """Keep it."""

    def error(self, line: str) -> None:
        """Write a line."""
        _write(line)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Keep it."""

    def pause(self) -> None:
        """Nothing moves."""


class PlainDisplay:
    """Lines alone, each written in one piece."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[int, float]] = {}
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)

    def say(self, line: str) -> None:
        """Write a line."""
        _write(line)

    def error(self, line: str) -> None:
        """Write a line."""
        _write(line)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Write a line when a quarter is reached, or nothing was said for a while."""
        now = time.monotonic()
        self._paces[stage].tell(done)
        quarter = QUARTERS * done // total if total else 0
        last_quarter, last_at = self._shown.get(stage, (-1, now))
        if quarter > last_quarter or now - last_at >= QUIET_SECONDS:
            self._shown[stage] = (max(quarter, last_quarter), now)
            self.say(describe_progress(stage, done, total, self._paces[stage]))

    def pause(self) -> None:
        """Nothing moves; a stage of the same name begins anew."""
        self._shown.clear()
        self._paces.clear()


class TerminalDisplay:
    """One bar a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def error(self, line: str) -> None:
        """Print it as a hint is printed."""
        self.say(line)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Move the stage's bar."""
        if self._progress is None:
            self._progress = self._bars()
            self._progress.start()
        self._paces[stage].tell(done)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, pace=self._paces[stage])
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def pause(self) -> None:
        """Leave the bars where they stand and give the cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks.clear()
            self._paces.clear()

    def _bars(self) -> Progress:
        width = self._console.width
        columns: list[ProgressColumn] = [TextColumn("{task.description:<14}"), TextColumn("{task.percentage:>3.0f} %")]
        if width >= WIDTH_WITH_BYTES:
            columns.append(DownloadColumn())
        if width >= WIDTH_WITH_RATE:
            columns.append(_RateColumn())
        if width >= WIDTH_WITH_TIME_LEFT:
            columns.append(_TimeLeftColumn())
        if width >= WIDTH_WITH_BARS:
            columns.insert(1, BarColumn(min(_MOST_BAR_WIDTH, width - WIDTH_WITH_TIME_LEFT)))
        return Progress(
            *columns,
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _RateColumn(ProgressColumn):
    """Bytes per second, as they were in the last seconds."""

    def render(self, task: Task) -> Text:
        rate = _pace_of(task).rate() if not task.finished else None
        return Text("" if rate is None else f"{decimal(round(rate))}/s")


class _TimeLeftColumn(ProgressColumn):
    """The time left at that rate."""

    def render(self, task: Task) -> Text:
        left = _pace_of(task).left(None if task.total is None else round(task.total)) if not task.finished else None
        return Text("" if left is None else describe_span(left))


def _pace_of(task: Task) -> Pace:
    pace = task.fields.get("pace")
    return pace if isinstance(pace, Pace) else Pace()


def _write(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def describe_progress(stage: str, done: int, total: int | None, pace: Pace | None = None) -> str:
    """Say in one line how far a stage is, how fast it moves, and how long it will still take."""
    rate = pace.rate() if pace else None
    speed = f", {decimal(round(rate))}/s" if rate is not None else ""
    if not total:
        return f"{stage}: {decimal(done)}{speed}"
    line = f"{stage}: {decimal(done)} of {decimal(total)} ({100 * done // total} %)"
    if pace is None or done >= total:
        return line
    left = pace.left(total)
    return line + speed + (f", {describe_span(left)} left" if left is not None else "")


def printable(text: str) -> str:
    """Return text of which nothing but line ends and tabs acts on a terminal."""
    return "".join(each if each in "\n\t" or each.isprintable() else ascii(each)[1:-1] for each in text)


def short_path(path: os.PathLike[str] | str) -> str:
    """Return a path with the home directory as `~`."""
    text, home = os.fspath(path), os.path.expanduser("~")  # noqa: PTH111 - compared as text
    return "~" + text[len(home) :] if home != "/" and text.startswith(home + "/") else text
