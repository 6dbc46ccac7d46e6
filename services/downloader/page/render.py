"""Putting text into the page's HTML. Pure. Whatever comes from outside is escaped here, and nowhere else.

The HTML in `static/` marks its places: `data-field="x"` holds the text x, `data-of="x"` is hidden while x is empty,
`data-bar="x"` is a bar, `data-list="x"` a list of texts. page/static/fill.js fills the same places in a browser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from services.downloader.page import fields

STATIC = Path(__file__).parent / "static"
_PLACE = re.compile(r'(<[a-z0-9]+\b[^<>]*\bdata-(field|of|bar|list)="([a-z_]+)"[^<>]*)>')
_SLOT = re.compile(r"<!--([a-z_]+)-->")

Value = str | list[str] | fields.Shares


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows: the documents of the API, and how it is set up."""

    facts: Mapping[str, Any]
    models: Sequence[Mapping[str, Any]]
    miners: Sequence[Mapping[str, Any]]
    needs_key: bool
    miner_urls: Sequence[str]


def status_page(shown: Shown, now: float) -> str:
    """Return the whole page as HTML."""
    tone, sentence = fields.headline(shown.models, shown.miners)
    where = ", ".join(shown.miner_urls)
    values: dict[str, Value] = {
        **fields.node(shown.facts),
        "headline": sentence,
        "title": f"{sentence.removesuffix('.')} · R3MES",
        "no_models": "" if shown.models else "none",
        "no_miners": "" if shown.miners else "none",
        "nowhere": f"None answers at {where}." if where else "R3MES_MINER_URL does not say where they are.",
    }
    slots = {
        "models": "".join(_model(status, now) for status in shown.models),
        "miners": "".join(_miner(view) for view in shown.miners),
        "model_template": _html("model.html"),
        "miner_template": _html("miner.html"),
        "served_template": _html("served.html"),
    }
    page = fill(_html("page.html"), values, slots)
    attributes = f'data-tone="{tone}" data-needs-key="{"yes" if shown.needs_key else "no"}"'
    return page.replace("<body>", f"<body {attributes}>", 1)


def _model(status: Mapping[str, Any], now: float) -> str:
    html = fill(_html("model.html"), fields.model(status, now))
    return _tagged(html, state=status["state"], digest=status["sha256"])


def _miner(view: Mapping[str, Any]) -> str:
    entries = "".join(fill(_html("served.html"), fields.served(entry)) for entry in view["models"])
    html = fill(_html("miner.html"), fields.miner(view), {"served": entries})
    return _tagged(html, state="ready" if view["ready"] else "not-ready")


def _tagged(html: str, **attributes: str) -> str:
    """Give the first element these data attributes."""
    text = "".join(f' data-{name}="{escape(value)}"' for name, value in attributes.items())
    return re.sub(r"^<[a-z]+", lambda found: found[0] + text, html, count=1)


def fill(html: str, values: Mapping[str, Value], slots: Mapping[str, str] | None = None) -> str:
    """Put values, as text, into the places of `html`, then HTML of ours into its slots; places without a value stay."""

    def place(found: re.Match[str]) -> str:
        tag, kind, name = found.groups()
        if name not in values:
            return found[0]
        value = values[name]
        hidden = "" if value else " hidden"
        if kind == "bar" and isinstance(value, tuple):
            return f'{tag} value="{value[0]:.0f}" max="{value[1]:.0f}">'
        if kind == "list" and isinstance(value, list):
            return f"{tag}{hidden}>{''.join(f'<li>{escape(text)}</li>' for text in value)}"
        return f"{tag}{hidden}>{escape(value) if kind == 'field' and isinstance(value, str) else ''}"

    filled = _PLACE.sub(place, html)
    return _SLOT.sub(lambda found: (slots or {}).get(found[1], ""), filled)


@cache
def _html(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8").strip()
