"""`r3mes pull [MODEL...]`: the command line, what it prints, and its exit code; the work is in `launcher.pulling`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from launcher.completing import complete_model
from launcher.display import choose_display, short_path
from launcher.options import AsJson, Quiet
from launcher.pulling import Pulled, Wanted, Way, pull
from launcher.session import Done, Report, Session
from launcher.streams import write_data
from launcher.ways import find_way
from shared.states import ModelStatus

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Names as in the genesis, digests, or 8 or more hex digits of one (default: all models of the genesis).",
        show_default=False,
        autocompletion=complete_model,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="After a failure wait for the next attempt, instead of ending.")]


def pull_(
    models: Models = None,
    *,
    wait: Wait = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fetch and verify models: a running stack (R3MES_URL) is asked and watched; without one this process does it.

    Exit codes: 3 wrong bytes, 4 no source, 5 no room, 6 paused, cancelled, vetoed, or fetched by somebody else.

    After Ctrl-C nothing is lost: a stack goes on, and without one the same command does.

    Example: r3mes pull SmolLM2-135M-Instruct
    """
    display = choose_display(quiet=quiet)
    way = find_way(display)
    chosen = way.choose(models or [])

    def work(model: Wanted, stop: threading.Event) -> Done:
        return _done(way, model, pull(way, model, display, stop, waits=wait))

    session = ModelSession(work, display, as_json=as_json, stopped=way.stopped)
    code = session.run(chosen)
    if as_json:
        write_data(json.dumps({"origin": way.place, "models": session.reports}, indent=2) + "\n")
    raise typer.Exit(code)


class ModelSession(Session[Wanted]):
    """A session over models."""

    def title(self, item: Wanted) -> str:
        """Return the model's name."""
        return item.model_name

    def identity(self, item: Wanted) -> Report:
        """Return name and digest."""
        return {"model": item.model_name, "sha256": item.sha256}


def _done(way: Way, model: Wanted, pulled: Pulled) -> Done:
    status = pulled.status
    details: Report = {"seconds": round(pulled.seconds, 3)} | (_as_data(status) if status else {})
    if pulled.error is not None or status is None:
        return Done("", {"result": "failed", **details}, error=pulled.error)
    result = "already_verified" if pulled.was_there else "verified"
    path = way.path(model, status)
    details |= {"result": result, "path": str(path) if path else None}
    return Done(describe(status, path, was_there=pulled.was_there), details, note=status.message)


def describe(status: ModelStatus, path: Path | None, *, was_there: bool) -> str:
    """Say in one line how a model ended that is verified."""
    where = short_path(path) if path else f"sha256 {status.sha256}"
    if was_there:
        return f"{status.model_name}: already verified, nothing was downloaded, {where}"
    origin = f" from {status.source}" if status.source else ""
    return f"{status.model_name}: verified, {decimal(status.received_bytes)}{origin}, {where}"


def _as_data(status: ModelStatus) -> Report:
    return {
        "state": status.state,
        "reason": status.reason,
        "source": status.source,
        "received_bytes": status.received_bytes,
        "expected_bytes": status.expected_bytes,
        "next_attempt_at": status.next_attempt_at,
        "message": status.message,
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pull")(pull_)
