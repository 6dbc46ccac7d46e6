"""The runbook within Grafana: docs/runbook.md, a panel for each alert, so that a dashboard can link to one entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import text as kinds

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
UID = "r3mes-runbook"
_ENTRY = re.compile(r"(?ms)^## (?P<name>\w+)\n\n(?P<content>.*?)\n(?=^## |\Z)")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")
_HALF, _WHOLE, _HEIGHT = 12, 24, 5


@dataclass(frozen=True, slots=True)
class Entry:
    """What to do about an alert, in Markdown."""

    name: str
    content: str


@cache
def entries() -> tuple[Entry, ...]:
    """Return the entries in order. Links to other pages become their names, since Grafana has no such page."""
    page = PAGE.read_text(encoding="utf-8")
    return tuple(Entry(one["name"], _LINK.sub(r"docs/\1", one["content"].strip())) for one in _ENTRY.finditer(page))


def link_to(name: str, index: int) -> dashboard.DashboardLink:
    """Return a panel's link to the entry of that name, the `index`-th."""
    link = dashboard.DashboardLink(f"Runbook: {name}").type(models.DashboardLinkType.LINK)
    return link.url(f"/d/{UID}?viewPanel=panel-{index + 1}")


def runbook() -> dashboard.Dashboard:
    """Return the builder of the dashboard."""
    built = (
        dashboard.Dashboard("R3MES: Runbook")
        .uid(UID)
        .description("What each alert means, what to look at, what to do: docs/runbook.md.")
        .tags(["r3mes"])
        .readonly()
    )
    last = len(entries()) - 1
    for index, entry in enumerate(entries()):
        panel = text.Panel().title(entry.name).content(entry.content).mode(kinds.TextMode.MARKDOWN)
        width = _WHOLE if index == last and index % 2 == 0 else _HALF
        built = built.with_panel(panel.span(width).height(_HEIGHT))
    return built
