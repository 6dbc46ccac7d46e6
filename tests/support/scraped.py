"""What a scrape of /metrics holds: its series by name, and whether counters only grow."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]
_GROWS = re.compile(r"_(total|count|sum|bucket)$")


def scraped(text: str) -> dict[Series, float]:
    """Every series of an exposition with its value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def went_back(before: dict[Series, float], after: dict[Series, float]) -> list[Series]:
    """Counters, and counts of histograms, that are less than they were."""
    return [one for one in before if _GROWS.search(one[0]) and after.get(one, -1.0) < before[one]]
