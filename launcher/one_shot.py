"""Commands about the store, in a folder whose stack runs in containers: they work in the one-shot container of `init`.

The store of such a stack is in a volume that belongs to several users, and `init` alone works there for a person. So a
command hands itself over to `docker compose run --rm --no-deps init r3mes …`, says so, and ends as that ends. The files
of its arguments are mounted, read-only, under `/host`. With `R3MES_MODELS_DIR` it is about a store of this host.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.display import printable
from launcher.programs import ask_program, is_there
from launcher.working_folder import working_folder
from shared.errors import UsageError

RUN = ("docker", "compose", "run", "--rm", "--no-deps")
MOUNT = Path("/host")
_LOOK_SECONDS = 20.0
# What `init` takes from the file .env alone, and would not see of a shell's environment.
_SETTINGS = ("R3MES_GENESIS", "R3MES_GENESIS_SHA256", "R3MES_GENESIS_SIGNATURE", "R3MES_GENESIS_PUBKEY")


def hand_over(
    words: Sequence[str], *, flags: Mapping[str, bool], files: Sequence[Path] = (), quiet: bool = False
) -> None:
    """Become `r3mes WORDS FLAGS FILES` in the container of `init`; return where this folder's stack has no containers.

    Raises UsageError for a file or a setting that cannot be handed over.
    """
    if not has_container_stack(os.environ, working_folder()):
        return
    if ignored := [name for name in _SETTINGS if os.environ.get(name)]:
        raise UsageError(
            f"{ignored[0]} is set in the environment, and the stack of this folder runs in containers",
            next_step="put it into .env, where `init` reads it",
        )
    given = [name for name, is_given in flags.items() if is_given]
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    command = one_shot([*words, *given], files, is_terminal=is_terminal)
    if not quiet:
        sys.stderr.write(printable(f"this folder's stack runs in containers: {shlex.join(command)}\n"))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)  # noqa: S606  no shell, and nothing is left to do here


def has_container_stack(environ: Mapping[str, str], folder: Path) -> bool:
    """Tell whether the folder's stack has containers, running or not, and the command is about no other store."""
    if environ.get("R3MES_STORE_KIND") == "container" or environ.get("R3MES_MODELS_DIR"):
        return False
    if not (folder / "docker-compose.yml").is_file() or not is_there("docker"):
        return False
    # Where no engine answers, no stack runs.
    said = ask_program(["docker", "compose", "ps", "--all", "--services"], seconds=_LOOK_SECONDS, cwd=folder)
    return said.works and {"init", "verifier"} <= set(said.stdout.split())


def one_shot(words: Sequence[str], files: Sequence[Path], *, is_terminal: bool) -> list[str]:
    """Return the command; raises UsageError for a file in a folder that Compose cannot name."""
    places = [file.resolve() for file in files]
    # Docker would make a folder that is not there; `Path.exists` would raise for one that is barred.
    folders = dict.fromkeys(place.parent for place in places if os.path.exists(place))  # noqa: PTH110
    for folder in folders:
        if ":" in str(folder):
            raise UsageError(f"{folder}: Compose mounts no folder with a colon in its name", next_step="move the file")
    mounts = [word for folder in folders for word in ("-v", f"{folder}:{_inside(folder)}:ro")]
    named = [str(_inside(place)) for place in places]
    return [
        *RUN,
        *([] if is_terminal else ["-T"]),
        *mounts,
        "init",
        "r3mes",
        *words,
        *(["--", *named] if named else []),
    ]


def _inside(path: Path) -> Path:
    """Return where a path of this host is in the container."""
    return MOUNT / path.relative_to("/")
