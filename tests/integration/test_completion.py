"""A TAB after `r3mes`, in real shells on a terminal: commands, options, models, files; and what it waits for."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.geneses import entry, list_form, other_entry
from tests.support.r3mes_shell import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHELLS = ("bash", "zsh", "fish")
SECONDS = 60  # on a machine that has other things to do
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--private", "-i"],
}
PREPARE = {
    "bash": "source ./script; PS1='ready> '",
    "zsh": "autoload -Uz compinit; compinit -D; source ./script; PROMPT='ready> '",
    "fish": "source ./script; function fish_prompt; echo 'ready> '; end",
}
# What a person types before the TAB, and what stands there after it.
TYPED = (
    ("r3mes sta", "r3mes status "),
    ("r3mes genesis mig", "r3mes genesis migrate "),
    ("r3mes status --js", "r3mes status --json "),
    ("r3mes ask --model Oth", "r3mes ask --model Other "),
    ("r3mes completion zs", "r3mes completion zsh "),
    ("r3mes import ./quan", "r3mes import ./quantised.gguf "),
    ("./elsewhere/r3mes sta", "./elsewhere/r3mes status "),
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model's file, a store that accepted two models, and `r3mes` on the PATH and beside it."""
    trust = tmp_path / "store" / "trust"
    trust.mkdir(parents=True)
    (trust / "genesis.json").write_bytes(list_form(entry(), other_entry()))
    (tmp_path / "quantised.gguf").touch()
    for folder in ("bin", "elsewhere"):
        program = tmp_path / folder / "r3mes"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m launcher "$@"\n')
        program.chmod(0o755)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "R3MES_MODELS_DIR": str(place / "store"),
        "HOME": str(place),
        "TERM": "dumb",
    }


def r3mes(place: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["r3mes", *arguments], cwd=place, env={**environment(place), **more}, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture
def terminal(request: pytest.FixtureRequest, place: Path) -> Iterator[pexpect.spawn]:
    """The shell that the test names, which has read the script in."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    made = r3mes(place, "completion", name)
    assert (made.returncode, made.stderr) == (0, "")
    (place / "script").write_text(made.stdout)
    program, *options = START[name]
    shell = pexpect.spawn(
        program, options, cwd=place, env=environment(place), encoding="utf-8", timeout=SECONDS, dimensions=(50, 200)
    )
    shell.sendline(PREPARE[name])
    shell.expect("ready> ")
    yield shell
    shell.close(force=True)


@pytest.mark.parametrize("terminal", SHELLS, indirect=True)
def test_a_tab_completes_commands_options_models_and_files(terminal: pexpect.spawn) -> None:
    for typed, completed in TYPED:
        terminal.send(typed + "\t")
        terminal.expect_exact(completed.removeprefix(typed))
        terminal.send("\x15\r")  # what stands there is taken away again
        terminal.expect("ready> ")


def test_a_shell_that_is_not_known_is_a_usage_error(place: Path) -> None:
    done = r3mes(place, "completion", "tcsh")
    assert done.returncode == 2
    assert "bash" in done.stderr


def test_the_list_of_commands_waits_for_no_command_s_module(place: Path) -> None:
    line = {"COMP_WORDS": "r3mes ", "COMP_CWORD": "1", "_R3MES_COMPLETE": "complete_bash"}
    done = r3mes(place, PYTHONPROFILEIMPORTTIME="1", **line)
    read_in = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert {"import", "status", "genesis"} <= set(done.stdout.split())
    assert not {"structlog", "requests", "redis", "launcher.status_command"} & read_in
    assert "typer" in read_in
