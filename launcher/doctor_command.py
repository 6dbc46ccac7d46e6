"""`r3mes doctor`: everything that may keep this host from an answer, looked at, with the next step for each."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from launcher.display import Display, choose_display
from launcher.doctor.checks import CHECKS
from launcher.doctor.report import document, render
from launcher.doctor.running import run_checks
from launcher.doctor.subject import Subject, blanker_of, examine
from launcher.doctor.verdict import Finding, exit_code
from launcher.interrupts import gather_until_interrupted
from launcher.options import AsJson, Quiet
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.errors import ExitCode


def doctor(
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody beyond this host.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash what is verified, too.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Explain also what is fine.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look for what keeps this host from an answer: settings, network, sources, store, services, GPU, containers.

    Each check says ok, warning, failed or skipped, and what to do next. Nothing is changed. Exit code 0 without a
    failure, else that of the most serious one. The JSON is made for support tickets: it holds no secret.

    Examples: r3mes doctor · r3mes doctor --offline · r3mes doctor --json > ticket.json
    """
    logging.getLogger().setLevel(logging.ERROR)  # what a start would warn of is said here in other words
    display = choose_display()
    subject = examine(os.environ, working_folder(), offline=offline, deep=deep)
    blanker = blanker_of(subject.environ, subject.project)
    adopt(subject)
    if not quiet:
        display.say(f"looking at this host{'' if offline else ' and at what it can reach'}, a few seconds")
        subject = replace(subject, on_bytes=display.progress)
    findings = find(subject, display)
    if findings is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if as_json:
        write_data(json.dumps(document(findings, subject, blanker), indent=2) + "\n")
    else:
        show(render(findings, blanker, verbose=verbose))
    raise typer.Exit(exit_code(findings))


def adopt(subject: Subject) -> None:
    """Let the libraries that look into the environment (proxies, certificates) see what Compose gives the services."""
    for name, value in subject.environ.items():
        if name.upper().endswith("_PROXY"):
            os.environ.setdefault(name, value)


def find(subject: Subject, display: Display) -> Sequence[Finding] | None:
    """Run every check; None when interrupted."""
    return gather_until_interrupted(lambda stop: run_checks(CHECKS, replace(subject, stop=stop)), display.pause)


def show(screen: Text) -> None:
    """Print the screen to stdout, in colour where that is a terminal."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if console.is_terminal and not console.is_dumb_terminal:
        console.print(screen, end="")
    else:
        write_data(screen.plain)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
