"""The words of a command line of `r3mes`, compared with the commands and options that there are; nothing is run."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

from launcher.cli import COMMANDS
from launcher.deferred import load


@cache
def root_commands() -> dict[str, Any]:
    return {row.name: load(row) for row in COMMANDS}


def words_of_r3mes(command: str) -> list[str] | None:
    """Return the arguments of `r3mes` in a command, also in that of a container, None where there is none."""
    words = shlex.split(command)
    for number, word in enumerate(words):
        if word.rpartition("/")[2] == "r3mes" and words[number - 1 : number] != ["-n"]:  # a namespace of kubectl's
            return words[number + 1 :]
    return None


def problem(arguments: list[str]) -> str | None:
    """Say which command or option of a line of `r3mes` does not exist."""
    commands, known, path = root_commands(), set(), "r3mes"
    for word in arguments:
        if commands and not word.startswith("-"):
            if word not in commands:
                return f"no command `{path} {word}`"
            command, path = commands[word], f"{path} {word}"
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            commands = getattr(command, "commands", {})
        elif word.startswith("-") and word.partition("=")[0] not in known:
            return f"`{path}` knows no {word}"
    return None
