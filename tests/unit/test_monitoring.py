"""Dashboards, rules and the page of metrics: made from the code, of one piece with it, each question answerable."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitoring import reference
from monitoring.grafana import generate
from monitoring.grafana.panels import BOARDS
from monitoring.grafana.picture import Line, cells, draw, faults, nothing, told
from monitoring.grafana.question import Board
from monitoring.grafana.runbook import entries
from services.downloader.metrics import DownloaderMetrics
from services.miner.metrics import MinerMetrics
from services.verifier.metrics import VerifierMetrics

REPOSITORY = Path(__file__).resolve().parents[2]
PROMETHEUS = REPOSITORY / "monitoring" / "prometheus"
RULES = {path.name: yaml.safe_load(path.read_text())["groups"] for path in (PROMETHEUS / "rules").glob("*.yml")}
ALERTS = {rule["alert"]: rule for group in RULES["alerts.yml"] for rule in group["rules"] if "alert" in rule}
RECORDED = {
    rule["record"] for groups in RULES.values() for group in groups for rule in group["rules"] if "record" in rule
}
# Somebody else's: HAProxy's exporter and Prometheus itself; that they are there, a real stack shows.
THEIRS = re.compile(r"haproxy_\w+|ALERTS|up|process_start_time_seconds|process_resident_memory_bytes")
WORDS = {
    "sum", "max", "min", "by", "rate", "increase", "histogram_quantile", "changes", "vector", "on", "group_left", "or",
    "and", "unless", "count", "offset", "label_replace", "max_over_time", "last_over_time", "le", "without", "bool",
    "time", "absent",
}  # fmt: skip


def exported() -> set[str]:
    """Every series that a service may export, GPUs' included."""
    names = {"r3mes_miner_gpu_utilization_ratio", "r3mes_miner_gpu_memory_used_bytes"}
    for make in (lambda one: DownloaderMetrics(one, Path("/")), VerifierMetrics, MinerMetrics):
        registry = CollectorRegistry()
        make(registry)
        names |= {name for found in registry._collector_to_names.values() for name in found}
    return names


EXPORTED = exported()


def series(expression: str) -> set[str]:
    """The names of series in PromQL: what is left without strings, labels, durations and words of the language."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\$\w+|\b\d+[smhd]\b', " ", expression)
    bare = re.sub(r"\b(by|on|group_left|without|ignoring)\s*\([^)]*\)", " ", bare)
    return {word for word in re.findall(r"[A-Za-z_:][\w:]*", bare) if word not in WORDS}


def unknown(expression: str) -> set[str]:
    return {name for name in series(expression) if name not in EXPORTED | RECORDED and not THEIRS.fullmatch(name)}


def test_names_are_found_in_queries() -> None:
    assert series('sum by (le) (rate(a_bucket{x="b"}[5m])) / on (job) vllm:c > 5') == {"a_bucket", "vllm:c"}
    assert unknown("rate(r3mes_nothing_total[5m])") == {"r3mes_nothing_total"}


@pytest.mark.parametrize("path", list(generate.files()), ids=lambda path: path.name)
def test_a_dashboard_is_what_the_generator_makes(path: Path) -> None:
    assert path.read_text() == generate.files()[path], "next: make dashboards"


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text() == reference.page(), "next: make metrics"


def test_the_page_names_every_metric_that_is_exported() -> None:
    text = reference.page()
    for name in EXPORTED:
        bare = re.sub(r"_(bucket|sum|count|created)$", "", name)
        assert f"`{name}`" in text or f"`{bare}`" in text or f"`{bare}_total`" in text, name


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_panel_asks_a_question_and_names_only_what_there_is(board: Board) -> None:
    for question in board.questions:
        assert question.title.endswith("?")
        assert set(question.alerts) <= set(ALERTS), question.title
        for query in question.queries:
            assert unknown(query.expression) == set(), question.title


DRAWN = {path.stem: json.loads(text) for path, text in generate.files().items()}


@pytest.mark.parametrize("board", DRAWN.values(), ids=DRAWN)
def test_panels_fill_the_grid_without_overlap_or_gap(board: dict[str, Any]) -> None:
    assert faults(board["panels"]) == []
    assert max(y for panel in board["panels"] for _, y in cells(panel)) < 60


def placed(title: str, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"title": title, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def test_a_panel_over_another_and_a_gap_are_told() -> None:
    whole = placed("whole", 0, 0, 24, 2)
    assert faults([whole, placed("over", 3, 1, 3, 1)]) == ["over lies over whole"]
    assert faults([whole, placed("low", 0, 3, 24, 1)]) == ["nothing stands in row 2"]
    assert faults([whole, placed("wide", 20, 2, 8, 1)]) == ["wide goes over the edge", "nothing stands in row 2"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.25, "percentunit", "25 %"),
        (0.012, "s", "12 ms"),
        (3.5, "s", "3.5 s"),
        (600.0, "s", "10 min"),
        (0.0, "bytes", "0 B"),
        (3 * 2.0**30, "bytes", "3 GiB"),
        (1500.0, "short", "1.5 k"),
        (2.0, "reqps", "2 req/s"),
    ],
)
def test_a_value_is_shown_in_its_unit(value: float, unit: str, shown: str) -> None:
    assert told(value, unit) == shown


@pytest.mark.parametrize("board", DRAWN.values(), ids=DRAWN)
def test_a_picture_has_every_panel_with_its_value_or_what_stands_for_it(board: dict[str, Any]) -> None:
    line = Line({"model": "<b>M"}, "a <b>name", ((1.0, 1.0), (2.0, 3.0)))
    silent, drawn = draw(board, nothing), draw(board, lambda *_query: [line])
    for panel in board["panels"]:
        for page in (silent, drawn):
            assert f">{html.escape(panel['title'])}</span>" in page
        assert html.escape(panel["fieldConfig"]["defaults"].get("noValue") or "") in silent
    assert "<b>" not in drawn


def test_a_panel_leads_to_the_entries_of_its_alerts_in_the_runbook() -> None:
    assert [entry.name for entry in entries()] == list(ALERTS)
    found = {panel["id"]: panel["title"] for panel in DRAWN["runbook"]["panels"]}
    for board in BOARDS:
        panels = {panel["title"]: panel for panel in generate.build(board)["panels"]}
        for question in board.questions:
            links = [link["url"] for link in panels[question.title].get("links") or ()]
            numbers = [int(link.removeprefix("/d/r3mes-runbook?viewPanel=panel-")) for link in links]
            assert [found[number] for number in numbers] == list(question.alerts)


def test_a_chart_names_its_lines_and_a_number_is_the_last_one() -> None:
    panels = [panel for board in DRAWN.values() for panel in board["panels"]]
    charts = [panel["options"]["legend"] for panel in panels if panel["type"] == "timeseries"]
    numbers = [panel["options"]["reduceOptions"] for panel in panels if panel["type"] in ("stat", "bargauge")]
    assert charts
    assert numbers
    assert all(legend["showLegend"] and legend["calcs"] == ["lastNotNull"] for legend in charts)
    assert all(reduced["calcs"] == ["lastNotNull"] for reduced in numbers)


def test_queries_of_a_panel_have_names_and_options_are_never_null() -> None:
    for board in DRAWN.values():
        for panel in board["panels"]:
            assert panel["options"] is not None
            names = [target["refId"] for target in panel.get("targets", ())]
            assert len(set(names)) == len(names)
            assert all(names)


def test_a_panel_has_the_provisioned_source_by_its_fixed_name() -> None:
    provisioned = yaml.safe_load(
        (REPOSITORY / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    (source,) = provisioned["datasources"]
    for path in generate.files():
        text = path.read_text()
        assert set(re.findall(r'"uid": "([^"]+)"', text)) <= {source["uid"], json.loads(text)["uid"]}
        assert "${DS_" not in text


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_there_is_and_leads_to_its_entry_in_the_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert unknown(rule["expr"]) == set()
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert f"\n## {name}\n" in (REPOSITORY / "docs" / "runbook.md").read_text()


def test_the_runbook_has_no_entry_for_an_alert_that_is_not_there() -> None:
    entries = re.findall(r"(?m)^## (\w+)$", (REPOSITORY / "docs" / "runbook.md").read_text())
    assert entries == list(ALERTS)


def test_every_alert_is_shown_to_fire_and_to_keep_quiet() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests" / "alerts_test.yml").read_text())["tests"]
    asked = [(one["alertname"], bool(one.get("exp_alerts"))) for test in tests for one in test["alert_rule_test"]]
    for name in ALERTS:
        assert {fires for found, fires in asked if found == name} == {True, False}, name


def test_names_of_others_are_made_from_what_there_is() -> None:
    for group in RULES["names.yml"]:
        for rule in group["rules"]:
            assert unknown(rule["expr"]) == set(), rule["record"]
    assert {
        "vllm:num_requests_running",
        "vllm:time_to_first_token_seconds_bucket",
        "llamacpp:prompt_tokens_total",
    } <= RECORDED


def test_prometheus_asks_every_service_on_its_own_port() -> None:
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"]: (one["names"], one["port"]) for job in scraped for one in job.get("dns_sd_configs", ())}
    assert found == {
        "miner": (["miner"], 8080),
        "downloader": (["downloader"], 8081),
        "verifier": (["verifier"], 8082),
        "gateway": (["gateway"], 8404),
        "dcgm": (["dcgm"], 9400),
    }


def hosts_job() -> dict[str, Any]:
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = (job for job in scraped if job["job_name"] == "hosts")
    assert isinstance(job, dict)
    return job


def test_of_another_host_s_series_only_its_own_raw_ones_are_taken_over() -> None:
    (match,) = hosts_job()["params"]["match[]"]
    jobs, without = re.fullmatch(r'\{job=~"([^"]+)",host="",__name__!~"([^"]+)"\}', match).groups()  # type: ignore[union-attr]
    assert {"miner", "downloader", "verifier", "gateway", "dcgm"} == set(jobs.split("|"))
    assert all(re.fullmatch(without, name) for name in RECORDED | {"ALERTS", "ALERTS_FOR_STATE"})
    assert not [name for name in EXPORTED | {"up", "haproxy_backend_active_servers"} if re.fullmatch(without, name)]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("gpu2.example:9090", "gpu2.example"),
        ("gpu2", "gpu2"),
        ("10.0.0.2:9090", "10.0.0.2"),
        ("[fd00::2]:9090", "[fd00::2]"),
        ("[fd00::2]", "[fd00::2]"),
        ("localhost:19091", "localhost:19091"),
    ],
)
def test_another_host_without_a_name_has_that_of_its_address(address: str, host: str) -> None:
    (rule,) = hosts_job()["relabel_configs"]
    assert (rule["source_labels"], rule["target_label"]) == (["host", "__address__"], "host")
    assert re.sub(rf"^(?:{rule['regex']})$", r"\1", f";{address}") == host
    assert not re.fullmatch(rule["regex"], f"named;{address}")


def test_instances_of_other_hosts_begin_with_the_host() -> None:
    (rule,) = hosts_job()["metric_relabel_configs"]
    assert rule == {"source_labels": ["host", "instance"], "separator": "/", "target_label": "instance"}


def test_a_swarm_s_prometheus_has_the_same_configuration_and_every_rule() -> None:
    stack = yaml.safe_load((REPOSITORY / "deploy" / "swarm" / "stack.yml").read_text())
    given = {
        one["target"]: (REPOSITORY / "deploy" / "swarm" / stack["configs"][one["source"]]["file"]).resolve()
        for one in stack["services"]["prometheus"]["configs"]
    }
    files = [PROMETHEUS / "prometheus.yml", *(PROMETHEUS / "rules").glob("*.yml")]
    assert given == {f"/etc/prometheus/{file.relative_to(PROMETHEUS)}": file for file in files}
