"""Asking a person before something is changed."""

from __future__ import annotations

import sys

import typer

from shared.errors import ExitCode, UsageError


def confirm(question: str) -> None:
    """Return if a person says yes; raises UsageError where there is none to ask, Exit(1) on a no, 130 on Ctrl-C."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on", next_step="add --yes if what is shown is what you want")
    try:
        agrees = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of what is typed
        sys.stderr.write("\nnothing was changed\n")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not agrees:
        sys.stderr.write("nothing was changed\n")
        raise typer.Exit(1)
