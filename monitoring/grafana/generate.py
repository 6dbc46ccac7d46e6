"""`make dashboards`: write monitoring/grafana/dashboards/*.json from `panels.py` and docs/runbook.md.

They are built with Grafana's own library. Grafana reads the files at its start; a test holds that they are what this
makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as queries

from monitoring.grafana.panels import BOARDS
from monitoring.grafana.question import Board, Query, Question
from monitoring.grafana.runbook import entries, link_to, runbook

FOLDER = Path(__file__).with_name("dashboards")
SOURCE = models.DataSourceRef(type_val="prometheus", uid="r3mes-prometheus")
_FILL = 12
_LAST = ["lastNotNull"]
_BUILDERS: dict[str, Any] = {
    "lines": timeseries.Panel,
    "stack": timeseries.Panel,
    "number": stat.Panel,
    "bars": bargauge.Panel,
    "table": table.Panel,
}


def target(query: Query, *, once: bool, as_table: bool) -> prometheus.Dataquery:
    """Return a query as Grafana asks it."""
    built = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).datasource(SOURCE)
    built = built.instant() if once else built.range()
    return built.format(queries.PromQueryFormat.TABLE) if as_table else built


def panel(question: Question) -> Any:  # noqa: ANN401  (the library's builders have no common type)
    """Return the builder of one panel."""
    once = question.kind in ("number", "bars", "table")
    built = _BUILDERS[question.kind]().title(question.title).datasource(SOURCE).unit(question.unit)
    built = built.span(question.width).height(question.height)
    for query in question.queries:
        built = built.with_target(target(query, once=once, as_table=question.kind == "table"))
    if question.alerts:
        names = [entry.name for entry in entries()]
        built = built.description(f"Watched by {', '.join(question.alerts)}.")
        built = built.links([link_to(name, names.index(name)) for name in question.alerts])
    if question.silence:
        built = built.no_value(question.silence)
    if question.words:
        results = {value: models.ValueMappingResult(text=word) for value, word in question.words}
        built = built.mappings([models.ValueMap(options=results)])
    return _shaped(built, question)


def _shaped(built: Any, question: Question) -> Any:  # noqa: ANN401  (as above)
    """Give a panel what its kind needs."""
    if question.steps:
        steps = [models.Threshold(value=start, color=colour) for start, colour in question.steps]
        built = built.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if question.kind in ("lines", "stack"):
        built = _chart(built, question)
    if question.kind == "bars":
        built = built.min(0).max(1).orientation(kinds.VizOrientation.HORIZONTAL)
    if question.kind == "number":
        built = built.decimals(0 if question.unit == "short" else None).graph_mode(kinds.BigValueGraphMode.NONE)
    if question.kind in ("bars", "number"):
        built = built.reduce_options(common.ReduceDataOptions().calcs(_LAST))
    if question.columns:
        names = {name: index for index, name in enumerate(question.columns)}
        built = built.with_transformation(
            models.DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": list(question.columns)}}
            )
        ).with_transformation(models.DataTransformerConfig(id_val="organize", options={"indexByName": names}))
    return built


def _chart(built: Any, question: Question) -> Any:  # noqa: ANN401  (as above)
    """Draw lines over time, one on the other for a stack, with names and last values below."""
    built = built.fill_opacity(_FILL if question.kind == "lines" else 4 * _FILL).line_width(1)
    built = built.show_points(kinds.VisibilityMode.NEVER).min(0)
    legend = common.VizLegendOptions().show_legend(True).display_mode(kinds.LegendDisplayMode.LIST)
    built = built.legend(legend.placement(kinds.LegendPlacement.BOTTOM).calcs(_LAST))
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    built = built.tooltip(tooltip)
    if question.steps:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphTresholdsStyleMode.DASHED)
        built = built.thresholds_style(style)
    if question.kind == "stack":
        built = built.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return built


def build(board: Board) -> dict[str, Any]:
    """Return a dashboard as JSON."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["r3mes"])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("R3MES").type(models.DashboardLinkType.DASHBOARDS).tags(["r3mes"]).keep_time(True)
        )
    )
    if board.chooses_miners:
        built = built.with_variable(
            dashboard.QueryVariable("miner")
            .label("Miner")
            .datasource(SOURCE)
            .query("label_values(r3mes_miner_requests_running, instance)")
            .multi(True)
            .include_all(True)
            .current(models.VariableOption(text="All", value="$__all", selected=True))
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    for question in board.questions:
        built = built.with_panel(panel(question))
    return as_json(built)


def as_json(built: dashboard.Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it: numbered panels and queries, no options that are null."""
    document: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    for number, one in enumerate(document["panels"], 1):
        one["id"] = number
        one["options"] = one["options"] or {}
        for letter, asked in zip("ABCDEFGH", one.get("targets") or (), strict=False):
            asked["refId"] = letter
    return document


def files() -> dict[Path, str]:
    """Return every file and what it holds."""
    boards = {board.uid: build(board) for board in BOARDS} | {"r3mes-runbook": as_json(runbook())}
    return {
        FOLDER / f"{uid.removeprefix('r3mes-')}.json": json.dumps(board, indent=2, sort_keys=True) + "\n"
        for uid, board in boards.items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
