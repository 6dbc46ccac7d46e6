"""`r3mes status --watch`: the status whenever it changes, until Ctrl-C.

Two threads look: one follows the downloader's events, and only wakes the other, which asks for the whole status, at
least once a second. So a change is seen at once where a stack runs, within a second where a store alone is read, and
neither a stack that went away nor one that hangs keeps Ctrl-C waiting.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from rich.console import Console
from rich.live import Live

from launcher.endpoints import ClientSettings, base_url, session
from launcher.interrupts import Interrupts
from launcher.miner_status import describe_miner
from launcher.sse import event_data, response_lines
from launcher.status import Report, report
from launcher.status_lines import describe, describe_host, one_line, origin
from launcher.status_screen import Fitting, StatusScreen
from launcher.streams import write_data
from launcher.words_of_time import iso, span
from shared.errors import R3mesError
from shared.states import ModelState, ModelStatus

_EVERY_SECONDS = 1.0
_LEAST_SECONDS = 0.2
_TICK_SECONDS = 0.1
_SILENT_SECONDS = 20.0  # events come at least every 15
_TENTHS = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """The last report, and since when (monotonic clock) and why there is none any more."""

    found: Report
    error: str = ""
    since: float = 0.0


class Watcher:
    """Looks from `start` on; `seen` is the latest."""

    def __init__(self, settings: ClientSettings, first: Report) -> None:
        self._settings = settings
        self._wake = threading.Event()
        self.seen = Seen(first)

    def start(self) -> None:
        """Begin to look."""
        for work in (self._look, self._listen):
            threading.Thread(target=work, name="watch", daemon=True).start()

    def _look(self) -> None:
        while True:
            self._wake.wait(_EVERY_SECONDS)
            self._wake.clear()
            try:
                self.seen = Seen(report(self._settings))
            except R3mesError as error:
                before = self.seen
                is_plain = self._settings.url is not None or before.found.is_store
                message = error.message if is_plain else f"no answer from {before.found.origin}"
                self.seen = Seen(before.found, message, before.since if before.error else time.monotonic())
            time.sleep(_LEAST_SECONDS)

    def _listen(self) -> None:
        while True:
            try:
                url = f"{base_url(self._settings, 'downloader')}/api/v1/events"
                with (
                    session(self._settings.api_key) as client,
                    client.get(url, stream=True, timeout=_SILENT_SECONDS) as response,
                ):
                    for _ in event_data(response_lines(response)):
                        self._wake.set()
            except (requests.RequestException, R3mesError):
                pass  # the other thread tells
            time.sleep(_EVERY_SECONDS)


class View(Protocol):
    """Shows what was seen, as often as it is called."""

    def show(self, seen: Seen) -> None:
        """Show it where it differs from what is there."""


def watch(settings: ClientSettings, *, as_json: bool, quiet: bool) -> None:
    """Show the status until a signal comes; raises what the first `report` raises."""
    watcher = Watcher(settings, report(settings))
    console = Console()
    with Interrupts() as interrupts:
        watcher.start()
        if not as_json and console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty():
            _watch_screen(watcher, interrupts, console, quiet=quiet)
            return
        view: View = JsonView() if as_json else LineView(quiet=quiet)
        while not interrupts.seen:
            view.show(watcher.seen)
            time.sleep(_TICK_SECONDS)


def _watch_screen(watcher: Watcher, interrupts: Interrupts, console: Console, *, quiet: bool) -> None:
    """Draw on the terminal's other screen, and leave the last state on the first."""
    drawn_at, drawn = 0.0, None
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while not interrupts.seen:
            if watcher.seen is not drawn or time.monotonic() - drawn_at >= _EVERY_SECONDS:
                drawn, drawn_at = watcher.seen, time.monotonic()
                live.update(Fitting(_screen(drawn), console.height), refresh=True)
            time.sleep(_TICK_SECONDS)
    console.print(_screen(watcher.seen))
    if not quiet:
        sys.stderr.write("stopped watching\n")


def _screen(seen: Seen) -> StatusScreen:
    notice = (
        f"{seen.error}, for {span(time.monotonic() - seen.since)}; this is what was there before" if seen.error else ""
    )
    return StatusScreen(seen.found, time.time(), one_line(notice))


class LineView:
    """A line, with its time, for each thing whose state is another; of a download one for each tenth."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._said: dict[str, object] = {}

    def show(self, seen: Seen) -> None:
        """Write the lines of what changed."""
        if seen.error:
            self._tell("error", seen.error, [f"error: {one_line(seen.error)}"])
            return
        if self._said.pop("error", None) is not None:
            self._write(f"{seen.found.origin} answers again")
        if not self._quiet and self._said.get("origin") != seen.found.origin:
            self._said["origin"] = seen.found.origin
            sys.stderr.write(origin(seen.found) + "\n")
        for model in seen.found.models:
            self._tell(model.sha256, _essence(model), describe(model))
        for miner in seen.found.miners:
            lines = [
                one_line(line) for line in describe_miner(miner.model_copy(update={"running": None, "waiting": None}))
            ]
            self._tell(miner.url, lines, lines)
        host = seen.found.host.model_copy(update={"queue": None, "disk": None})
        lines = list(describe_host(host))
        self._tell("host", lines, lines)

    def _tell(self, key: str, state: object, lines: list[str]) -> None:
        if self._said.get(key) != state:
            self._said[key] = state
            for line in lines:
                self._write(line)

    def _write(self, line: str) -> None:
        write_data(f"{iso(time.time())} {line}\n")


class JsonView:
    """One document a line for each change of anything but the disk's free bytes."""

    def __init__(self) -> None:
        self._said: object = None

    def show(self, seen: Seen) -> None:
        """Write the document where it changed."""
        document: dict[str, Any] = {"error": {"message": seen.error}} if seen.error else seen.found.document
        essence = {key: value for key, value in document.items() if key != "disk"}
        if "models" in essence:
            essence["models"] = [{**model, "updated_at": None} for model in essence["models"]]
        if essence != self._said:
            self._said = essence
            write_data(json.dumps(document) + "\n")


def _essence(model: ModelStatus) -> tuple[object, ...]:
    done = model.hashed_bytes if model.state is ModelState.VERIFYING else model.received_bytes
    tenth = _TENTHS * done // model.expected_bytes if model.expected_bytes else 0
    return model.state, model.reason, model.message, model.source, model.next_attempt_at, tenth
