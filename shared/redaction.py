"""What of an address may be shown: in a report that is handed on, in an error, in a log. Pure."""

from __future__ import annotations

import re

BLANK = "***"
_USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(?<=://)([^\s'\"?]+)\?[^\s'\"]+")


def without_credentials(text: str) -> str:
    """Return `text` with user info and query of every address in it blanked."""
    return _QUERY.sub(rf"\1?{BLANK}", _USER_INFO.sub(f"{BLANK}@", text))
