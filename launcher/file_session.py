"""What `r3mes import` and `r3mes verify` have in common: several files, one after the other."""

from __future__ import annotations

from pathlib import Path

from launcher.display import short_path
from launcher.importing import NotPinnedError
from launcher.session import Report, Session
from shared.errors import R3mesError


class FileSession(Session[Path]):
    """A session over files."""

    def title(self, item: Path) -> str:
        """Return the file's path."""
        return short_path(item)

    def identity(self, item: Path) -> Report:
        """Return the file's path as it was given."""
        return {"file": str(item)}

    def failure(self, error: R3mesError) -> Report:
        """Return also what was found, where it is not pinned."""
        if isinstance(error, NotPinnedError):
            return {"result": "not_pinned", "sha256": error.sha256, "pinned": list(error.pinned)}
        return {"result": "failed"}
