"""Asking a person before something is changed."""

from __future__ import annotations

import sys

import typer

from shared.errors import UsageError


def confirm(question: str) -> None:
    """Return if a person says yes; raises UsageError where there is none to ask, and Exit(1) on a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on", next_step="add --yes if what is shown is what you want")
    if not typer.confirm(question, err=True):
        sys.stderr.write("nothing was changed\n")
        raise typer.Exit(1)
