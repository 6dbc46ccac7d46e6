"""The rules of the live test differ from those of the operator in their durations alone."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.compose import REPOSITORY
from tests.support.hurried_rules import hurried, often

FOLDER = REPOSITORY / "monitoring" / "prometheus"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("for: 5m", "for: 10s"),
        ("rate(a_total[10m]) == 0", "rate(a_total[20s]) == 0"),
        ("a unless a offset 1h", "a unless a offset 120s"),
        ("last_over_time(a[1d]) > 600", "last_over_time(a[2880s]) > 600"),
        ("for: 10s", "for: 1s"),
        ("time() - process_start_time_seconds < 3600", "time() - process_start_time_seconds < 120"),
        ("r3mes:slow:ratio_rate5m > 14.4 * 0.05", "r3mes:slow:ratio_rate5m > 14.4 * 0.05"),
    ],
)
def test_every_duration_is_thirty_times_shorter_and_nothing_else(rule: str, wanted: str) -> None:
    assert hurried(rule, 30) == wanted


@pytest.mark.parametrize("path", sorted((FOLDER / "rules").glob("*.yml")), ids=lambda path: path.name)
def test_hurried_rules_are_the_same_rules(path: Path) -> None:
    text = path.read_text()
    other = hurried(text)
    duration = r"\d+[smhd]\b|(?<=process_start_time_seconds < )\d+"
    assert re.sub(duration, "", other) == re.sub(duration, "", text)
    assert not re.findall(r"(?:for: |\[|offset )\d+[mhd]\b", other)
    assert len(yaml.safe_load(other)["groups"]) == len(yaml.safe_load(text)["groups"])


def test_a_hurried_prometheus_differs_in_its_intervals_alone() -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(often(text))
    assert after["global"] == {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    assert before | {"global": after["global"]} == after
