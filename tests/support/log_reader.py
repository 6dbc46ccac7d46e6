"""The JSON lines that a service of ours has written since a moment, read while it may be writing the next one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class LogReader:
    """Reads `file` from where it ends now (or whole), whether it is there yet or not."""

    def __init__(self, file: Path, *, whole: bool = False) -> None:
        self._file = file
        self._offset = file.stat().st_size if file.exists() and not whole else 0

    def last(self, event: str) -> dict[str, Any] | None:
        """Return the latest line of an event; a line without its end is not there yet."""
        if not self._file.exists():
            return None
        complete, _, _unfinished = self._file.read_bytes()[self._offset :].rpartition(b"\n")
        for line in reversed(complete.splitlines()):
            if line.startswith(b"{") and (document := json.loads(line))["event"] == event:
                return dict(document)
        return None
