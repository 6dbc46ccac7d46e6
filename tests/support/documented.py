"""A project and a home in which the command lines of the docs are run as a person would: bash, a terminal, a `y`."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pexpect

from tests.support.command_lines import ROOT
from tests.support.geneses import entry, list_form, other_entry

PINNED, OWN = b"GGUF: a file that is pinned", b"GGUF: a file of one's own"
LEGACY = '{"model_ipfs": "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}\n'
PROJECT_PARTS = ("deploy/gateway", "monitoring/prometheus", "secrets")
SECONDS = 120


class Place:
    """A project's folder with `.venv`, a genesis that pins two models, and files of models where the docs have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project, self.home = folder / "project", folder / "home"
        for part in PROJECT_PARTS:
            shutil.copytree(ROOT / part, self.project / part)
        shutil.copy(ROOT / "docker-compose.yml", self.project)
        shutil.copytree(ROOT / "genesis", self.project / "genesis")
        digest = hashlib.sha256(PINNED).hexdigest()
        genesis = list_form(entry(verification_sha256=digest), other_entry())
        (self.project / "genesis" / "genesis.json").write_bytes(genesis)
        (self.project / "old.json").write_text(LEGACY)
        (self.project / "question.txt").write_text("Why is the sky blue?\n")
        for name in ("model.gguf", "Meta-Llama-3-8B-Instruct.Q4_K_M.gguf"):
            (self.project / name).write_bytes(OWN)
        (self.home / "Downloads").mkdir(parents=True)
        (self.home / "Downloads" / "model.gguf").write_bytes(PINNED)
        (folder / "srv").mkdir()
        self._make_programs()

    def _make_programs(self) -> None:
        programs = self.project / ".venv" / "bin"
        programs.mkdir(parents=True)
        python = shlex.quote(sys.executable)
        for name, command in (("r3mes", f"{python} -m launcher"), ("python", python)):
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / name).chmod(0o755)

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a person who has put `.venv/bin` on the PATH."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("R3MES_", "HF_"))},
            "HOME": str(self.home),
            "PATH": f"{self.project / '.venv' / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            **more,
        }

    def here(self, text: str) -> str:
        """Return a command with the places that it may not touch replaced by ones of this folder."""
        return text.replace("/srv/", f"{self.folder}/srv/").replace("/tmp/corpus", f"{self.folder}/corpus")  # noqa: S108

    def type(self, command: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a command after the exports and settings `before` it, say yes when asked; return code and screen."""
        exports = [f"export {text.removeprefix('export ')}" for text in before]
        return type_command("\n".join(["set -e", *map(self.here, [*exports, command])]), self.project, self.environ())


def type_command(script: str, folder: Path, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run bash on a terminal and answer `y` to every question; return the exit code and all that was on the screen."""
    screen = ""
    with pexpect.spawn(
        "bash", ["-c", script], cwd=str(folder), env=dict(environ), encoding="utf-8", timeout=SECONDS,
        dimensions=(40, 160),
    ) as terminal:  # fmt: skip
        while terminal.expect([r"\[y/N\]", pexpect.EOF]) == 0:
            screen += terminal.before + terminal.after
            terminal.sendline("y")
        screen += terminal.before
        terminal.wait()  # before the terminal is closed, which would end what is about to end
        return terminal.exitstatus if terminal.exitstatus is not None else -1, screen
