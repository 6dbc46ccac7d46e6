"""What Compose mounts from the project's folder, for services that run as users which this host does not know."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shared.errors import ConfigurationError

MOUNTED = ("deploy/gateway", "monitoring/prometheus", "monitoring/grafana")
# Whose files have rights of their own (secrets/README.md). A gateway that cannot look into its folder speaks no TLS.
SECRETS = ("secrets/api", "secrets/downloader", "secrets/verifier", "secrets/tls")
# What HAProxy, Prometheus and Grafana read there; not what an editor leaves beside it.
_READ = {".cfg", ".yml", ".json"}


def check_mounted(project: Path) -> None:
    """Raise ConfigurationError where others may not read what is mounted: a clone under umask 027 or 077."""
    closed = [str(each.relative_to(project)) for folder in MOUNTED for each in _closed(project / folder)]
    shut = [folder for folder in SECRETS if _is_shut(project / folder, project)]
    if found := closed + shut:
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        steps = [f"chmod -R a+rX {' '.join(MOUNTED)}"] if closed else []
        steps += [f"chmod 755 {' '.join(shut)}"] if shut else []
        raise ConfigurationError(
            f"the users of the services cannot read {found[0]}{others}",
            next_step=f"in the project's folder: {' && '.join(steps)}",
        )


def _closed(folder: Path) -> Iterator[Path]:
    """Yield each directory and file that others may not use; a folder that is not there has none."""
    for place, _, names in os.walk(folder):
        files = (Path(place, name) for name in names)
        wanted = [(Path(place), stat.S_IROTH | stat.S_IXOTH)]
        wanted += [(file, stat.S_IROTH) for file in files if file.suffix in _READ]
        yield from (path for path, bits in wanted if path.exists() and path.stat().st_mode & bits != bits)


def _is_shut(folder: Path, project: Path) -> bool:
    """Tell whether others may not enter a folder that was given to nobody else by hand."""
    if not folder.is_dir():
        return False
    status, owner = folder.stat(), project.stat()
    return not status.st_mode & stat.S_IXOTH and (status.st_uid, status.st_gid) == (owner.st_uid, owner.st_gid)
