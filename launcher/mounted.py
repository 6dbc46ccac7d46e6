"""What Compose mounts from the project's folder, for services that run as users which this host does not know."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shared.errors import ConfigurationError

MOUNTED = ("deploy/gateway", "monitoring/prometheus", "monitoring/grafana")
# What HAProxy, Prometheus and Grafana read there; not what an editor leaves beside it.
_READ = {".cfg", ".yml", ".json"}


def check_mounted(project: Path) -> None:
    """Raise ConfigurationError where others may not read the mounted configuration: a clone under umask 027 or 077."""
    closed = [each for folder in MOUNTED for each in _closed(project / folder)]
    if closed:
        others = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        raise ConfigurationError(
            f"the users of the services cannot read {closed[0].relative_to(project)}{others}",
            next_step=f"in the project's folder: chmod -R a+rX {' '.join(MOUNTED)}",
        )


def _closed(folder: Path) -> Iterator[Path]:
    """Yield each directory and file that others may not use; a folder that is not there has none."""
    for place, _, names in os.walk(folder):
        files = (Path(place, name) for name in names)
        wanted = [(Path(place), stat.S_IROTH | stat.S_IXOTH)]
        wanted += [(file, stat.S_IROTH) for file in files if file.suffix in _READ]
        yield from (path for path, bits in wanted if path.exists() and path.stat().st_mode & bits != bits)
