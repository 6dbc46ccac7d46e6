"""A cgroup with a memory limit and no swap, of either version; needs root, and a tree that may be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One such group."""

    directory: Path
    first: bool  # of the two versions

    @property
    def procs(self) -> Path:
        """The file that takes the ids of the processes in it."""
        return self.directory / "cgroup.procs"

    @property
    def killed(self) -> int:
        """How often the kernel killed for want of memory."""
        return self._number("memory.oom_control" if self.first else "memory.events", "oom_kill")

    @property
    def anonymous(self) -> int:
        """Bytes that no file can give back."""
        return self._number("memory.stat", "rss" if self.first else "anon")

    @property
    def major_faults(self) -> int:
        """How often a page had to be read from a file."""
        return self._number("memory.stat", "pgmajfault")

    def _number(self, file: str, name: str) -> int:
        found = re.search(rf"^{name} (\d+)$", (self.directory / file).read_text(), re.MULTILINE)
        assert found is not None, file
        return int(found[1])


@contextmanager
def memory_limit(size: int) -> Iterator[MemoryLimit]:
    """Make one; skips the test where this machine allows none."""
    first = (ROOT / "memory").is_dir()
    directory = (ROOT / "memory" if first else ROOT) / "r3mes-test-limit"
    try:
        directory.mkdir(exist_ok=True)
        (directory / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(size))
        swap = directory / ("memory.swappiness" if first else "memory.swap.max")
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    try:
        yield MemoryLimit(directory, first)
    finally:
        directory.rmdir()
