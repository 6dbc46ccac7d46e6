"""What every command says of itself: with examples, in no more columns than there are, without escapes in a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
import typer
from typer.main import get_command

from launcher.cli import app
from shared.version import __version__
from tests.support.launching import launch
from tests.support.terminal import Terminal

# Groups of commands, and the ones without anything to say by example.
GROUPS = {(), ("init",), ("genesis",)}


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and sub-command, by the words that call it."""
    root = get_command(app)
    yield ()
    for name in root.list_commands(typer.Context(root)):  # type: ignore[attr-defined]
        yield (name,)
        child = root.get_command(typer.Context(root), name)  # type: ignore[attr-defined]
        for below in getattr(child, "commands", {}):
            yield (name, below)


def help_of(words: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help, written in this process: starting Python for each would take a minute."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        app([*words, "--help"], prog_name="r3mes")
    assert ended.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_fits_and_shows_how(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (80, 60):
        text = help_of(words, columns, monkeypatch)
        assert all(len(line) <= columns for line in text.splitlines())
        assert "\x1b" not in text
    shown = help_of(words, 120, monkeypatch)
    assert f"Usage: {' '.join(['r3mes', *words])}" in shown
    if words not in GROUPS:
        assert "Example" in shown, "give the command an example or two"
        assert f"r3mes {' '.join(words)}" in shown.partition("Example")[2]


def test_the_commands_stand_in_their_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of((), 80, monkeypatch)
    running, models = text.index("─ Running ─"), text.index("─ Models ─")
    assert running < text.index("│ status ") < models < text.index("│ import ")
    assert text.index("─ Genesis ─") < text.index("│ init ")


def test_help_in_a_pipe_and_at_a_terminal() -> None:
    assert "Running" in launch("--help").stdout
    with Terminal("--help", columns=80, lines=60) as terminal:
        assert terminal.end() == 0
        assert "r3mes [OPTIONS] COMMAND" in terminal.text
        assert "\x1b[" in terminal.written


def test_the_version_is_one_line() -> None:
    done = launch("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"r3mes {__version__}\n", "")


def test_without_a_command_the_help_is_shown_as_a_usage_error() -> None:
    done = launch()
    assert done.returncode == 2
    assert "Running" in done.stdout + done.stderr
