"""`make pictures`: each dashboard's grid as a page, and as a PNG where Chromium is, to look at without Grafana.

Panels stand where the JSON puts them, with title, kind, unit and notes; overlaps and gaps are told and drawn red. With
`--prometheus URL` they show what its answers are now. `faults` and `draw` are pure; `main` reads, asks and writes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import requests

from monitoring.grafana.generate import FOLDER

Panel = dict[str, Any]
COLUMNS = 24
_COLUMN, _ROW, _GAP = 58, 34, 8  # pixels
_SPAN_SECONDS, _STEPS = 600, 120
_COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0")
_BINARY = 1024.0
_SCALES = {"bytes": ("B", _BINARY), "Bps": ("B/s", _BINARY), "short": ("", 1000.0), "reqps": ("req/s", 1000.0)}
_TIMES: tuple[tuple[float, float, str], ...] = ((120, 1 / 60, "min"), (1, 1, "s"), (0, 1000, "ms"))
_STYLE = """body{margin:0;background:#111217;color:#ccccdc;font:12px sans-serif}h1{font-size:18px;margin:8px}
.p{position:absolute;box-sizing:border-box;background:#181b1f;border:1px solid #2c3235;overflow:hidden;padding:4px 8px}
.bad{border:2px solid red}.t{font-weight:600}.k{color:#7b8087;float:right}.n{color:#6e9fff;font-size:10px}
.big{font-size:34px;text-align:center}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:1px 8px}
.none{color:#7b8087;text-align:center;padding-top:24px}i{display:inline-block;width:10px;height:3px;margin:2px 4px}"""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of an answer: its labels, and (time, value) pairs; of a query for now there is one."""

    labels: dict[str, str]
    legend: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


Ask = Callable[[str, str, bool], Sequence[Line]]


def cells(panel: Panel) -> set[tuple[int, int]]:
    """Return the cells of the grid that a panel takes."""
    place = panel["gridPos"]
    return {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}


def faults(panels: Sequence[Panel]) -> list[str]:
    """Return what is wrong with the grid: panels over each other, over the edge, and empty cells between them."""
    found, taken = [], dict[tuple[int, int], str]()
    for panel in panels:
        over = sorted({taken[cell] for cell in cells(panel) & set(taken)})
        found += [f"{panel['title']} lies over {title}" for title in over]
        if any(x >= COLUMNS for x, _ in cells(panel)):
            found.append(f"{panel['title']} goes over the edge")
        taken |= dict.fromkeys(cells(panel), panel["title"])
    rows = max((y for _, y in taken), default=-1) + 1
    empty = {(x, y) for x in range(COLUMNS) for y in range(rows)} - set(taken)
    return [*found, *(f"nothing stands in row {y}" for y in sorted({y for _, y in empty}))]


def told(value: float, unit: str) -> str:
    """Return a value as Grafana would show it in this unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        factor, name = next(one for least, *one in _TIMES if abs(value) >= least)
        return f"{value * factor:.3g} {name}"
    name, base = _SCALES[unit]
    power = min(4, int(math.log(max(1.0, abs(value)), base)))
    prefix = ("", "k", "M", "G", "T")[power] + ("i" if base == _BINARY and power else "")
    return f"{value / base**power:.3g} {prefix}{name}".rstrip()


def draw(board: dict[str, Any], ask: Ask) -> str:
    """Return a dashboard as a page; `ask(query, legend, is_for_now)` gives the series of a query."""
    panels = board["panels"]
    wrong = faults(panels)
    height = max(y for panel in panels for _, y in cells(panel)) + 1
    parts = [f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><h1>{escape(board['title'])}</h1>"]
    parts.append("".join(f"<p style=color:red>{escape(line)}</p>" for line in wrong))
    parts.append(f"<div style='position:relative;width:{COLUMNS * _COLUMN}px;height:{height * _ROW}px'>")
    for panel in panels:
        lies = any(line.startswith(panel["title"]) for line in wrong)
        parts.append(_panel(panel, ask, "p bad" if lies else "p"))
    return "".join([*parts, "</div>"])


def _panel(panel: Panel, ask: Ask, kind: str) -> str:
    place = panel["gridPos"]
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    left, top = place["x"] * _COLUMN, place["y"] * _ROW
    width, height = place["w"] * _COLUMN - _GAP, place["h"] * _ROW - _GAP
    lines = [
        line
        for target in panel.get("targets", ())
        for line in ask(target["expr"], target["legendFormat"], bool(target["instant"]))
    ]
    what = {"stat": _number, "table": _table, "bargauge": _bars, "text": _text}.get(panel["type"], _chart)
    body = what(panel, lines, (width - 18, height - 66)) if lines or what is _text else _nothing(panel)
    return (
        f"<div class='{kind}' style='left:{left}px;top:{top}px;width:{width}px;height:{height}px'>"
        f"<span class=k>{panel['type']} · {unit}</span><span class=t>{escape(panel['title'])}</span>"
        f"<div class=n>{escape(panel.get('description') or '')}&nbsp;</div>{body}</div>"
    )


def _number(panel: Panel, lines: Sequence[Line], _room: tuple[int, int]) -> str:
    defaults = panel["fieldConfig"]["defaults"]

    def colour(value: float) -> str:
        steps = defaults.get("thresholds", {}).get("steps", ())
        passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return passed[-1] if passed else "#ccccdc"

    shown = (
        f"<span style=color:{colour(line.last)}>{_word(defaults, line.last)} </span>"
        f"<small>{escape(line.legend)} </small>"
        for line in lines
    )
    return f"<div class=big>{''.join(shown)}</div>"


def _word(defaults: dict[str, Any], value: float) -> str:
    """A value, or the words that the panel has for it."""
    for mapping in defaults.get("mappings") or ():
        if f"{value:g}" in mapping["options"]:
            return escape(mapping["options"][f"{value:g}"]["text"])
    return told(round(value) if defaults.get("decimals") == 0 else value, defaults["unit"])


def _table(panel: Panel, lines: Sequence[Line], _room: tuple[int, int]) -> str:
    kept = panel["transformations"][0]["options"]["include"]["names"]
    rows = "".join("<tr>" + "".join(f"<td>{escape(one.labels.get(n, ''))[:40]}" for n in kept) for one in lines)
    return f"<table><tr>{''.join(f'<th>{name}' for name in kept)}{rows}</table>"


def _bars(panel: Panel, lines: Sequence[Line], room: tuple[int, int]) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    return "".join(
        f"<div>{escape(line.legend)} {told(line.last, unit)}</div>"
        f"<div style='background:#7eb26d;height:14px;width:{max(0.0, min(1.0, line.last)) * room[0]:.0f}px'></div>"
        for line in lines
    )


def _nothing(panel: Panel) -> str:
    silence = panel["fieldConfig"]["defaults"].get("noValue") or "No data"
    return f"<div class=none>{escape(silence)}</div>"


def _text(panel: Panel, _lines: Sequence[Line], _room: tuple[int, int]) -> str:
    return f"<div>{escape(panel['options']['content'])}</div>"


def _chart(panel: Panel, lines: Sequence[Line], room: tuple[int, int]) -> str:
    """Lines over time (a stack is drawn as lines, too), with the last values below."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    width, height = room[0], room[1]
    moments = [moment for line in lines for moment, _ in line.points]
    begin, end = min(moments), max(*moments, min(moments) + 1)
    top = max(1e-9, *(value for line in lines for _, value in line.points))
    drawn, named = [], []
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        at = " ".join(
            f"{(moment - begin) / (end - begin) * width:.1f},{(1 - value / top) * height:.1f}"
            for moment, value in line.points
        )
        drawn.append(f"<polyline fill=none stroke='{colour}' points='{at}'/>")
        named.append(f"<i style=background:{colour}></i>{escape(line.legend)} {told(line.last, unit)}")
    return f"<svg width={width} height={height}>{''.join(drawn)}</svg><div>{' '.join(named)}</div>"


def asking(url: str, now: float) -> Ask:
    """Return what asks a real Prometheus, with Grafana's variables filled in."""

    def ask(expression: str, legend: str, is_for_now: bool) -> list[Line]:
        query = expression.replace("$__rate_interval", "1m").replace("$miner", ".+")
        begin = {"start": str(now - _SPAN_SECONDS), "end": str(now), "step": str(_SPAN_SECONDS // _STEPS)}
        path = "query" if is_for_now else "query_range"
        words = {"query": query} | ({"time": str(now)} if is_for_now else begin)
        answer = requests.get(f"{url}/api/v1/{path}", words, timeout=30)
        answer.raise_for_status()
        return [line for one in answer.json()["data"]["result"] if (line := _line(one, legend)).points]

    return ask


def _line(one: dict[str, Any], legend: str) -> Line:
    name = legend
    for label, value in one["metric"].items():
        name = name.replace("{{" + label + "}}", value)
    pairs = one.get("values") or [one["value"]]
    points = tuple((float(moment), float(value)) for moment, value in pairs if value not in ("NaN", "+Inf"))
    return Line(one["metric"], name, points)


def nothing(_expression: str, _legend: str, _is_for_now: bool) -> Sequence[Line]:
    """Answer as a Prometheus that has read nothing."""
    return ()


def photograph(page: Path, rows: int) -> Path | None:
    """Let Chromium make a PNG of a page; None where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return None
    picture = page.with_suffix(".png")
    size = f"--window-size={COLUMNS * _COLUMN},{rows * _ROW + 60}"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
    command += [f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603  our own command line
    return picture


def made(folder: Path, ask: Ask) -> Iterator[Path]:
    """Write a page for each dashboard, and its picture; yield what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        page = (folder / path.name).with_suffix(".html")
        page.write_text(draw(board, ask), encoding="utf-8")
        yield page
        picture = photograph(page.absolute(), max(y for panel in board["panels"] for _, y in cells(panel)) + 1)
        if picture is not None:
            yield picture


def main() -> int:
    """Draw every dashboard; 1 if Prometheus does not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/dashboards"))
    parser.add_argument("--prometheus", help="its address, as http://127.0.0.1:9090")
    options = parser.parse_args()
    try:
        for path in made(options.folder, asking(options.prometheus, time.time()) if options.prometheus else nothing):
            sys.stdout.write(f"{path}\n")
    except requests.RequestException as error:
        sys.stderr.write(f"{options.prometheus} does not answer: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
