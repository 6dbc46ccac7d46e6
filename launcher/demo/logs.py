"""The end of a service's log, as a person reads it: a JSON line becomes one short line, anything else stays."""

from __future__ import annotations

import json
from pathlib import Path

MOST_LINES = 12
MOST_BYTES = 64 * 1024
_NOISE = frozenset({"timestamp", "logger", "service", "level", "event"})


def last_words(log_file: Path) -> str:
    """Return the last lines of a log file."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - MOST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    lines = [readable(line) for line in text.splitlines() if line.strip()]
    return "\n".join(f"  | {line}" for line in lines[-MOST_LINES:]) or "  | (it said nothing)"


def readable(line: str) -> str:
    """Return a log line without what only machines need."""
    try:
        record = json.loads(line)
        event = record["event"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return line
    rest = " ".join(f"{key}={value}" for key, value in record.items() if key not in _NOISE)
    return f"{record.get('level', 'info')}: {event} {rest}".rstrip()
