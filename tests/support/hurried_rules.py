"""Alerts and their Prometheus in a hurry: the same rules with every duration divided, so that a test sees them fire."""

from __future__ import annotations

import re
from pathlib import Path

HURRY = 30  # an hour is two minutes, two minutes are four seconds
SCRAPE_SECONDS = 2
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# `for: 5m`, the window of a range `[10m]`, `offset 1h`; names such as ratio_rate5m have no space or bracket before.
_DURATION = re.compile(r"(?P<before>for: |\[|offset )(?P<count>\d+)(?P<unit>[smhd])\b")
_AGE = re.compile(r"(?<=time\(\) - process_start_time_seconds < )\d+")
_INTERVAL = re.compile(r"(?m)^(?P<name>  (?:scrape_interval|scrape_timeout|evaluation_interval): ).*$")


def hurried(rules: str, factor: int = HURRY) -> str:
    """Return rules whose windows and waits are `factor` times shorter, in whole seconds, at least one."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * _UNITS[found["unit"]] // factor
        return f"{found['before']}{max(1, seconds)}s"

    return _AGE.sub(lambda found: str(int(found[0]) // factor), _DURATION.sub(shorter, rules))


def often(configuration: str, seconds: int = SCRAPE_SECONDS) -> str:
    """Return a configuration of Prometheus that reads and decides every so many seconds."""
    return _INTERVAL.sub(rf"\g<name>{seconds}s", configuration)


def hurry(folder: Path) -> None:
    """Let the Prometheus whose configuration lies in `folder` (a copy of monitoring/prometheus) be in a hurry."""
    for path in (folder / "rules").glob("*.yml"):
        path.write_text(hurried(path.read_text()))
    configuration = folder / "prometheus.yml"
    configuration.write_text(often(configuration.read_text()))
