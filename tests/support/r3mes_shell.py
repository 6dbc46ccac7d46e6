"""The `r3mes` command as a person starts it: a process of its own, in a project's folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
R3MES = [sys.executable, "-m", "launcher"]


class Shell:
    """Runs `r3mes` in a project's folder of its own, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        (self.project / "genesis").mkdir(parents=True)
        self.genesis = self.project / "genesis" / "genesis.json"
        self.store = folder / "store"
        self.environ = {
            **os.environ,
            "R3MES_MODELS_DIR": str(self.store),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*R3MES, *arguments],
            cwd=self.project,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
