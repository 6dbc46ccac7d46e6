"""The status as a screen for a person, at any width.

Each colour means one thing: green is right, cyan is under way, yellow waits for something, red needs a person. Nothing
is said by a colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.filesize import decimal
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from launcher.miner_status import MinerReport, describe_models
from launcher.status import Host, Report
from launcher.status_lines import disk_words, one_line, queue_words, redis_words
from launcher.words_of_time import ago, short_span, span
from shared.states import ModelState, ModelStatus, Source

_INDENT = 2
_LABEL = "sha256 "
_DIGEST = 64
_MOST_NAME = 32  # one that is longer moves its own state alone
_MOST_BAR, _LEAST_BAR = 30, 8
_QUIET = "dim"
_STYLES = {
    ModelState.VERIFIED: "green",
    ModelState.DOWNLOADING: "cyan",
    ModelState.VERIFYING: "cyan",
    ModelState.ABSENT: "yellow",
    ModelState.PAUSED: "yellow",
    ModelState.FAILED: "red",
    ModelState.VETOED: "red",
}
_MARKS = {"green": "●", "cyan": "◐", "yellow": "○", "red": "✗"}
_PLAIN_MARKS = {"green": "*", "cyan": "~", "yellow": "-", "red": "x"}
_SOURCES = {Source.IMPORT: "a local file", Source.HUGGINGFACE: "Hugging Face", Source.IPFS: "IPFS"}
# Below this the downloader soon starts nothing any more: its margin (design, Space).
_SMALL_ROOM = 0.02


@dataclass(frozen=True, slots=True)
class StatusScreen:
    """A report at the moment `now` (seconds since the epoch), which may be old: `notice` then says why.

    `brief`: what is right takes a line, and what is not says no more than it must.
    """

    found: Report
    now: float
    notice: str = ""
    brief: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out for the console's width."""
        marks = _PLAIN_MARKS if options.ascii_only else _MARKS
        width = options.max_width
        if self.notice:
            yield Text(self.notice, style="red")
        yield self._head(", " if options.ascii_only else " · ")
        names = [one_line(model.model_name) for model in self.found.models]
        room = min(_MOST_NAME, max(map(cell_len, names), default=0))
        for name, model in zip(names, self.found.models, strict=True):
            yield from self._space()
            yield _title(marks, _STYLES[model.state], f"{name:<{room}}", self._state(model))
            yield from self._about_briefly(model, width) if self.brief else self._about(model, width)
        if self.found.miners or not self.found.is_store:
            yield from self._space()
            yield from _miners(marks, self.found.miners, brief=self.brief)
        yield Text()
        yield _host(self.found.host)

    def _space(self) -> Iterator[Text]:
        if not self.brief:
            yield Text()

    def _head(self, between: str) -> Text:
        host = self.found.host
        parts = [f"node {host.node}"] if host.node else []
        parts.append(f"genesis {host.genesis_sha256[:12]}")
        if host.staged_genesis_sha256:
            parts.append(f"staged {host.staged_genesis_sha256[:12]}")
        where = "no stack answers; read from" if self.found.is_store else "from"
        parts.append(f"{where} {self.found.origin.removesuffix('/api/v1/status')}")
        return Text(one_line(between.join(parts)), _QUIET)

    def _state(self, model: ModelStatus) -> str:
        if model.state is ModelState.VERIFIED and model.verified_at:
            return f"verified {ago(self.now - model.verified_at)}"
        if model.reason is not None:
            return f"{model.state}: {model.reason.replace('_', ' ')}"
        return "not here yet" if model.state is ModelState.ABSENT else str(model.state)

    def _about(self, model: ModelStatus, width: int) -> Iterator[RenderableType]:
        source = f"from {_SOURCES[model.source]}" if model.source else ""
        if model.state is ModelState.VERIFIED or not model.received_bytes:
            size = decimal(model.expected_bytes) if model.expected_bytes else ""
            yield from _detail(" ".join(part for part in (size, source) if part))
        else:
            yield _progress(model, width)
            is_beside = model.hashed_bytes and model.state is not ModelState.VERIFYING
            hashed = f"{decimal(model.hashed_bytes)} hashed" if is_beside else ""
            yield from _detail(", ".join(part for part in (source, hashed) if part))
        yield from _detail(model.message, style="")
        yield from _detail(self._next(model), style="")
        room = width - _INDENT - len(_LABEL)
        yield from _detail(
            _LABEL + (model.sha256 if room >= _DIGEST else f"{model.sha256[:12]}...{model.sha256[-12:]}")
        )

    def _about_briefly(self, model: ModelStatus, width: int) -> Iterator[RenderableType]:
        if model.received_bytes and model.state in {ModelState.DOWNLOADING, ModelState.VERIFYING}:
            yield _progress(model, width)
        yield from _detail(model.message, style="")

    def _next(self, model: ModelStatus) -> str:
        if model.state is ModelState.PAUSED:
            return f"goes on with: r3mes resume {model.model_name}"
        if model.state is not ModelState.FAILED:
            return ""
        if model.next_attempt_at is None:
            return f"is not tried again by itself: r3mes retry {model.model_name}"
        wait = model.next_attempt_at - self.now
        return f"is tried again in {span(wait)}" if wait > 0 else "is tried again now"


def _title(marks: dict[str, str], style: str, name: str, state: str) -> Text:
    return Text.assemble((marks[style], style), " ", (name, "bold"), "  ", (one_line(state), style))


def _detail(text: str, style: str = _QUIET) -> Iterator[RenderableType]:
    if text:
        yield Padding(Text(one_line(text), style), (0, 0, 0, _INDENT), expand=False)


def _progress(model: ModelStatus, width: int) -> RenderableType:
    """Return a bar with figures: of the download, and of the hashing once all bytes are there."""
    is_hashing = model.state is ModelState.VERIFYING
    done, total = (model.hashed_bytes if is_hashing else model.received_bytes), model.expected_bytes
    figures = [decimal(done)]
    if total:
        figures = [f"{100 * done // total:>3} %", f"{decimal(done)} of {decimal(total)}"]
    if is_hashing:
        figures.append("hashed")
    if model.bytes_per_second and model.state is ModelState.DOWNLOADING:
        figures.append(f"{decimal(int(model.bytes_per_second))}/s")
        if model.eta_seconds is not None:
            figures.append(f"{short_span(model.eta_seconds)} left")
    words = Text("  ".join(figures))
    room = min(_MOST_BAR, width - _INDENT - 2 - words.cell_len)
    if not total or room < _LEAST_BAR:
        return Padding(words, (0, 0, 0, _INDENT), expand=False)
    style = _STYLES[model.state]
    bar = ProgressBar(total, done, width=room, style=_QUIET, complete_style=style, finished_style=style)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(bar, words)
    return Padding(grid, (0, 0, 0, _INDENT), expand=False)


def _miners(marks: dict[str, str], miners: tuple[MinerReport, ...], *, brief: bool) -> Iterator[RenderableType]:
    if not miners:
        yield _title(marks, "yellow", "miner", "none answers")
    before: list[str] = []
    for miner in miners:
        style = "green" if miner.ready else "yellow"
        yield _title(marks, style, one_line(f"miner {miner.url}"), _readiness(miner))
        lines = [] if brief else describe_models(miner)
        if lines and lines == before:
            lines = ["the same as the one above"]
        else:
            before = lines
        yield from (detail for line in (miner.reason, *lines) for detail in _detail(line))


def _readiness(miner: MinerReport) -> str:
    words = "ready" if miner.ready else "not ready"
    if miner.running is None or not (miner.ready or miner.running):
        return words
    waiting = f", {miner.waiting} waiting" if miner.waiting else ""
    return f"{words}, {miner.running} running{waiting}"


def _host(host: Host) -> RenderableType:
    lines = []
    if host.queue is not None:
        lines.append(_fact("queue", queue_words(host.queue)))
    if host.redis_up is not None:
        lines.append(_fact("redis", redis_words(is_up=host.redis_up), "" if host.redis_up else "red"))
    if host.disk is not None:
        is_small = host.disk.free_bytes < _SMALL_ROOM * host.disk.total_bytes
        lines.append(_fact("disk", disk_words(host.disk), "red" if is_small else ""))
    return Group(*lines)


def _fact(name: str, words: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<7}", _QUIET), (words, style))


@dataclass(frozen=True, slots=True)
class Fitting:
    """A screen in no more than `height` lines: in brief where it does not fit, and cropped where that does not."""

    screen: StatusScreen
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the first lines, and count those that are left out."""
        for brief in (False, True):
            content = replace(self.screen, brief=brief)
            lines = console.render_lines(content, options.update(height=None), pad=False)
            if len(lines) <= self.height:
                break
        kept = lines if len(lines) <= self.height else lines[: self.height - 1]
        for number, line in enumerate(kept):
            if number:
                yield Segment.line()
            yield from line
        if len(kept) < len(lines):
            yield Segment.line()
            yield Text(f"({len(lines) - len(kept)} more lines: a higher terminal shows them)", _QUIET, end="")
