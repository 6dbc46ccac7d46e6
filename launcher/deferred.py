"""Commands whose modules are read in when they are called: so that the help and a TAB need not wait for all of them.

A row says what a list of commands shows; everything else is said by the module, by its `register(app)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand
from typer.main import get_group


class Row(NamedTuple):
    """One command: its name, the module of the launcher that registers it, its group, and its help's start."""

    name: str
    module: str
    group: str
    help: str


@cache
def load(row: Row) -> Any:  # noqa: ANN401  the base of Typer's commands is private
    """Read the command's module in and return the command itself."""
    app = typer.Typer()
    importlib.import_module(f"launcher.{row.module}").register(app)
    return get_group(app).commands[row.name]


def add_rows(app: typer.Typer, rows: Sequence[Row]) -> None:
    """Add a stand-in for each command, which becomes the command when somebody calls it or asks for its options."""
    for row in rows:
        _add(app, row)


def _add(app: typer.Typer, row: Row) -> None:
    class StandIn(TyperCommand):
        def make_context(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  as above
            return load(row).make_context(*args, **extra)

        @property
        def commands(self) -> Any:  # noqa: ANN401  of a group, for who looks through all commands
            return getattr(load(row), "commands", {})

    @app.command(row.name, cls=StandIn, help=row.help, rich_help_panel=row.group)
    def _never_called() -> None: ...
