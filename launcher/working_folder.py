"""The folder that a command is called in: its `.env`, its genesis, its `docker-compose.yml`."""

from __future__ import annotations

from pathlib import Path

from shared.errors import UsageError


def working_folder() -> Path:
    """Return the folder; raises UsageError where it has been removed meanwhile."""
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the folder that this was called in cannot be had: {error.strerror}", next_step="go to one that is there"
        ) from error
