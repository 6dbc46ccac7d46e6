"""Prometheus itself on what the repository gives it: rules that are right and fire, and an answer for every panel."""

import json
import subprocess

import pytest
import requests

from monitoring.grafana.panels import BOARDS
from monitoring.grafana.question import Board
from shared.genesis import ModelPin
from tests.support.compose import REPOSITORY, Stack
from tests.support.containers import need_engine
from tests.support.waiting import wait_until
from tests.support.whole_stack import answers_at_once, ask, body

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

IMAGE = "prom/prometheus:v3.5.0"
FOLDER = REPOSITORY / "monitoring" / "prometheus"
# What has no series as long as nothing of the kind has happened; a rule test or the next test makes it happen.
NOT_WITHOUT_TROUBLE = {"When will the downloads be done?", "Which services were started again?", "What is wrong now?"}


def promtool(*arguments: str) -> str:
    need_engine()
    command = [
        "docker",
        "run",
        "--rm",
        "-v",
        f"{FOLDER}:/etc/prometheus:ro",
        "--entrypoint",
        "promtool",
        IMAGE,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_configuration_and_the_rules_are_right() -> None:
    assert "SUCCESS" in promtool("check", "config", "/etc/prometheus/prometheus.yml")


def test_every_rule_is_right() -> None:
    files = sorted(path.name for path in (FOLDER / "rules").glob("*.yml"))
    told = promtool("check", "rules", *(f"/etc/prometheus/rules/{name}" for name in files))
    assert told.count("SUCCESS") == len(files) == 2


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "/etc/prometheus/tests/alerts_test.yml")


def test_rules_tell_hosts_apart_whose_services_have_the_same_addresses() -> None:
    assert "SUCCESS" in promtool("test", "rules", "/etc/prometheus/tests/hosts_test.yml")


def query(stack: Stack, expression: str) -> list[dict[str, object]]:
    url = stack.url("prometheus", 9090) + "/api/v1/query"
    answer = requests.get(url, params={"query": expression}, timeout=30)
    assert answer.ok, answer.text
    result = answer.json()["data"]["result"]
    assert isinstance(result, list)
    return result


def for_now(expression: str) -> str:
    """A panel's query with Grafana's variables filled in."""
    return expression.replace("$__rate_interval", "1m").replace("$miner", ".+")


@pytest.fixture(scope="module")
def loaded(stack: Stack, pin: ModelPin) -> Stack:
    """The stack while it has something to do, and Prometheus has read of it."""
    ask(stack, pin.model_name)
    bodies = [body(pin.model_name, content=f"Count to {number}.") for number in range(12)]
    jobs = "count(count by (job) (count_over_time(up[1m]) > 2)) == 5"
    busy = " and ".join(f"sum(rate(r3mes_miner_{kind}_tokens_total[1m])) > 0" for kind in ("generation", "prompt"))

    def read() -> bool:
        answers_at_once(stack.url(), bodies)  # what is done before the first scrape, rate() does not see
        return all(query(stack, wanted) for wanted in (jobs, busy, "r3mes:served"))

    wait_until(read, 90, "Prometheus has read every service a few times, and of work that goes on")
    return stack


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_has_an_answer(loaded: Stack, board: Board) -> None:
    empty = {
        question.title
        for question in board.questions
        for one in question.queries
        if not question.gpu and not query(loaded, for_now(one.expression))
    }
    assert empty <= NOT_WITHOUT_TROUBLE


def test_every_metric_of_the_page_is_read(loaded: Stack) -> None:
    url = loaded.url("prometheus", 9090) + "/api/v1/label/__name__/values"
    found = set(requests.get(url, timeout=30).json()["data"])
    lines = (REPOSITORY / "docs" / "metrics.md").read_text().splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| `")]
    wanted = {name.strip(" `") + ("_count" if kind.strip() == "histogram" else "") for name, kind in rows}
    assert {name for name in wanted - found if "_gpu_" not in name} == set()


READ = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:{}/metrics', timeout=10).read().decode())"


@pytest.mark.parametrize(("service", "port"), [("downloader", 8081), ("verifier", 8082), ("miner", 8080)])
def test_what_a_service_tells_is_as_prometheus_wants_it(loaded: Stack, service: str, port: int) -> None:
    text = loaded.python(service, READ.format(port)) + "\n"
    command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "promtool", IMAGE, "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "r3mes_build_info" in text


def jobs(stack: Stack) -> set[str]:
    """The jobs that have targets now."""
    url = stack.url("prometheus", 9090) + "/api/v1/targets?state=active"
    return {target["scrapePool"] for target in requests.get(url, timeout=10).json()["data"]["activeTargets"]}


def test_a_host_that_joins_is_read_without_a_restart_and_one_that_leaves_no_more(loaded: Stack) -> None:
    assert "hosts" not in jobs(loaded)
    path = loaded.directory / "monitoring" / "prometheus" / "hosts" / "other.json"
    path.write_text(json.dumps([{"targets": ["prometheus:9090"]}]))  # one that is there, as the other host's
    try:
        wait_until(lambda: query(loaded, 'up{job="hosts", host="prometheus"} == 1'), 60, "the other host is read")
        wait_until(lambda: query(loaded, 'up{job="miner", instance=~"prometheus/.+"}'), 60, "and its miner told apart")
    finally:
        path.unlink()
    wait_until(lambda: "hosts" not in jobs(loaded), 60, "it is forgotten")


def test_a_stack_without_dcgm_has_no_target_for_it_and_no_complaint(loaded: Stack) -> None:
    assert "dcgm" not in jobs(loaded)
    told = loaded.run("logs", "--no-color", "prometheus")
    assert "dcgm" not in told


def test_dashboards_for_vllm_and_llama_server_find_their_names(loaded: Stack) -> None:
    for name in ("vllm:num_requests_running", "vllm:e2e_request_latency_seconds_bucket"):
        assert all(one["metric"]["model_name"] for one in query(loaded, name))  # type: ignore[index]
        assert query(loaded, name)
    assert query(loaded, "llamacpp:tokens_predicted_total > 0")


def test_the_number_of_series_does_not_grow_with_requests(loaded: Stack, pin: ModelPin) -> None:
    def count() -> int:
        (found,) = query(loaded, 'count({job="miner"})')
        return int(found["value"][1])  # type: ignore[index]

    before = count()
    for part in range(4):
        bodies = [body(pin.model_name, tokens=1, content=f"{part} {number}") for number in range(16)]
        answers_at_once(loaded.url(), bodies)
    assert count() <= before + 2, "the first of an outcome may make a series"
