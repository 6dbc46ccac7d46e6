"""What a service says, read as it comes: how often each event was logged since a mark, and with which last words."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any


class LogTail:
    """Follows the JSON lines of one log file; `read` takes what is new, `mark` begins to count anew."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()  # of all time
        self.last: dict[str, dict[str, Any]] = {}
        self._offset = 0
        self._rest = b""

    def mark(self) -> None:
        """Begin to count anew; a line that its writer did not end will never be one."""
        self.read()
        self.counts.clear()
        self.last.clear()
        self._rest = b""

    def read(self) -> None:
        """Take what came since the last time."""
        with suppress(FileNotFoundError), self.file.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
            self._offset += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            document = json.loads(line)
            event = str(document["event"])
        except (ValueError, KeyError, TypeError):
            return
        self.counts[event] += 1
        self.totals[event] += 1
        self.last[event] = document

    def tail(self, size: int = 3000) -> str:
        """Return the last words, for a person."""
        with suppress(FileNotFoundError):
            return self.file.read_bytes()[-size:].decode(errors="replace")
        return ""
