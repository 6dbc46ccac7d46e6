"""`r3mes completion bash|zsh|fish`: the script that teaches a shell what may follow; the program may lie anywhere."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from launcher.streams import write_data

_VARIABLE = "_R3MES_COMPLETE"


class Shell(StrEnum):
    """The shells in which this is tested."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


# What Typer's scripts call is found on the PATH; what a person began to type may lie elsewhere, as .venv/bin/r3mes.
_TYPED = {
    Shell.ZSH: ("complete_zsh r3mes)", "complete_zsh ${~words[1]})"),
    Shell.FISH: (
        "(commandline -cp) r3mes",
        "(commandline -cp) (string replace -r '^~/' $HOME/ -- (commandline -op)[1])",
    ),
}


def script(shell: Shell) -> str:
    """Return the script for one shell, with a line end."""
    text = get_completion_script(prog_name="r3mes", complete_var=_VARIABLE, shell=shell.value)
    if shell in _TYPED:
        text = text.replace(*_TYPED[shell])
    return text + "\n"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)],
) -> None:
    """Print the script that completes `r3mes` in a shell.

    Example: eval "$(r3mes completion bash)" in ~/.bashrc; in ~/.zshrc, after compinit, the same with zsh;
    r3mes completion fish >~/.config/fish/completions/r3mes.fish
    """
    write_data(script(shell))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(completion)
