"""`r3mes status`: the command line; what is found is in `launcher.status`."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from launcher.endpoints import ClientSettings
from launcher.help_text import examples
from launcher.options import AsJson, Quiet
from launcher.status import report
from launcher.status_lines import origin, status_lines
from launcher.status_screen import StatusScreen
from launcher.status_watch import watch as watch_status
from launcher.streams import write_data
from shared.settings import load_settings

_EXAMPLES = examples(
    "r3mes status",
    "r3mes status --watch",
    "r3mes status --json | jq '.models[].state'",
    "R3MES_URL=http://gpu-host:8000 r3mes status",
)


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C (exit code 0).")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show models, miners, queue and disk of the running stack; without one, what the store holds.

    The stack is the one of R3MES_URL (exit code 6 if it does not answer), else a demo or services or containers that run on this host.
    """  # noqa: E501  a paragraph of help is one line
    settings = load_settings(ClientSettings)
    if watch:
        watch_status(settings, as_json=as_json, quiet=quiet)
        return
    found = report(settings)
    if as_json:
        write_data(json.dumps(found.document, indent=2) + "\n")
        return
    console = Console()
    if sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal:
        console.print(StatusScreen(found, time.time()))
        return
    if not quiet:
        sys.stderr.write(origin(found) + "\n")
    write_data("".join(line + "\n" for line in status_lines(found)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(status)
