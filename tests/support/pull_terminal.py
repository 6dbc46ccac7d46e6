"""A command in a pseudo-terminal, and the screen that a person sees of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pexpect
import pyte

ROWS = 24
_READ_SECONDS = 0.05


class Terminal:
    """Runs `argv` on a screen of `columns`; `raw` is every byte that it wrote. Ends it when left."""

    def __init__(self, argv: Sequence[str], columns: int, cwd: Path, environ: Mapping[str, str]) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._child = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            cwd=str(cwd),
            env={"TERM": "xterm-256color", **environ},
            dimensions=(ROWS, columns),
        )

    def lines(self) -> list[str]:
        """Read what was written meanwhile; return the screen's lines that are not empty."""
        try:
            while not self._child.closed:
                written = self._child.read_nonblocking(65536, timeout=_READ_SECONDS)
                self.raw += written
                self._stream.feed(written)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def line(self, start: str) -> str:
        """Return the line that begins so; fails the test if there is none, or more than one."""
        lines = self.lines()
        found = [line for line in lines if line.startswith(start)]
        assert len(found) == 1, "\n".join(lines)
        return found[0]

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor is to be seen."""
        return not self._screen.cursor.hidden

    @property
    def colours(self) -> list[bytes]:
        """Every sequence that sets a colour."""
        return [each for each in re.findall(rb"\x1b\[([0-9;]*)m", self.raw) if re.search(rb"(^|;)[34][0-8]", each)]

    def press(self, control: str) -> None:
        """Press Ctrl and a letter."""
        self._child.sendcontrol(control)

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        while self._child.isalive():
            self.lines()
        self.lines()
        self._child.close()
        return int(self._child.exitstatus if self._child.exitstatus is not None else -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close(force=True)
