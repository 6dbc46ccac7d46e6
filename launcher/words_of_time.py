"""Times in words, as a person says them. Pure; seconds in, words out."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS = ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"), (1, "second"))
_SHORT = {"day": "d", "hour": "h", "minute": "min", "second": "s"}


def span(seconds: float) -> str:
    """Return `3 minutes`: two of a unit or more, so that nothing is rounded to half; below that the smaller unit."""
    whole = max(0, round(seconds))
    for size, name in _UNITS:
        if whole >= 2 * size or size == 1:
            count = whole // size
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    raise AssertionError("unreachable")


def short_span(seconds: float) -> str:
    """Return `3 min`, for a place with little room."""
    count, unit = span(seconds).split()
    return f"{count} {_SHORT[unit.rstrip('s')]}"


def ago(seconds: float) -> str:
    """Return `3 minutes ago`; a moment that is to come by this clock counts as now."""
    return f"{span(seconds)} ago" if seconds >= 1 else "just now"


def iso(epoch: float) -> str:
    """Return a moment, before the year 10000, as `2026-01-31T23:59:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
