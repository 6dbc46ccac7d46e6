"""A project's folder with an operator's genesis, and a store that starts and acceptances of a test work on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from shared.acceptance import (
    StartOutcome,
    accept,
    check_start,
    load_init_settings,
    plan_acceptance,
    stage,
    start_store,
)
from shared.errors import ConfigurationError, ExitCode
from shared.store.layout import StoreLayout


class Host:
    """A project's folder with an operator's file, and a store, in a test's own directory."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        self.file = self.project / "genesis.json"
        self.layout = StoreLayout(folder / "store")
        self.environ = {"R3MES_MODELS_DIR": str(self.layout.root), "R3MES_GENESIS": str(self.file)}

    def start(self, **environ: str) -> StartOutcome:
        settings, values = load_init_settings({**self.environ, **environ}, project=self.project)
        return start_store(settings, values)

    def check(self, **environ: str) -> StartOutcome:
        settings, values = load_init_settings({**self.environ, **environ}, project=self.project)
        return check_start(settings, values)

    def accept(self, *, staged: bool = False, **environ: str) -> None:
        settings, values = load_init_settings({**self.environ, **environ}, project=self.project)
        (stage if staged else accept)(plan_acceptance(settings, values))

    def refused(self, **environ: str) -> ConfigurationError:
        """Start, expect exit 78 and not one change on the disk; `init check` says the same."""
        before = snapshot(self.layout.root)
        with pytest.raises(ConfigurationError) as checked:
            self.check(**environ)
        with pytest.raises(ConfigurationError) as started:
            self.start(**environ)
        assert snapshot(self.layout.root) == before
        assert started.value.exit_code is ExitCode.CONFIGURATION
        assert started.value.next_step
        assert started.value.diagnostics() == checked.value.diagnostics()
        return started.value


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return every name under `root` with its inode, time of last change and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(root))] = (status.st_ino, status.st_ctime_ns, content)
    return found
