"""Several miners behind the gateway: they share the load, and one that dies, drains or restarts costs no answer."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.waiting import wait_until
from tests.support.whole_stack import (
    READY_SECONDS,
    answered,
    answers_at_once,
    ask,
    body,
    kill_container,
    miners,
    running,
    scale,
    usable_miners,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

MINERS = 3
BODY_LIMIT = 4 * 1024 * 1024  # R3MES_MAX_BODY_BYTES


@pytest.fixture(scope="module")
def fleet(stack: Stack) -> Iterator[Stack]:
    """The stack with three miners; with one again at the end."""
    scale(stack, MINERS)
    yield stack
    scale(stack, 1)


def test_each_of_three_miners_answers_some_of_sixty_requests(fleet: Stack, pin: ModelPin) -> None:
    before = {miner: answered(miner) for miner in miners(fleet)}
    bodies = [body(pin.model_name, content=f"Tell me {number} things about rain.") for number in range(60)]
    answers = answers_at_once(fleet.url(), bodies)
    assert {answer.status_code for answer in answers} == {200}
    shares = [answered(miner) - count for miner, count in before.items()]
    assert len(shares) == MINERS
    assert sum(shares) == 60
    assert min(shares) > 0, shares


def test_prometheus_sees_every_miner_and_every_other_service(fleet: Stack) -> None:
    wanted = {"miner": MINERS, "downloader": 1, "verifier": 1, "gateway": 1, "prometheus": 1}
    url = fleet.url("prometheus", 9090) + "/api/v1/targets?state=active"

    def seen() -> dict[str, int]:
        targets = requests.get(url, timeout=10).json()["data"]["activeTargets"]
        return dict(Counter(target["scrapePool"] for target in targets if target["health"] == "up"))

    def all_seen() -> bool:
        assert (found := seen()) == wanted, found
        return True

    wait_until(all_seen, 60, "Prometheus has read every service")


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_a_miner_that_ends_under_load_costs_no_answer(fleet: Stack, pin: ModelPin, end: str) -> None:
    victim = miners(fleet)[0]
    bodies = [body(pin.model_name, tokens=48, content=f"Tell me {number} stories.") for number in range(24)]
    bodies[0]["metadata"] = {"long": "x" * 100_000}  # as long as a conversation may be, and still sent again
    with ThreadPoolExecutor(2) as threads:
        answers = threads.submit(answers_at_once, fleet.url(), bodies)
        wait_until(lambda: running(victim) > 0, 60, "the miner works on some of them")
        if end == "killed":
            kill_container(victim)
        else:
            subprocess.run(["docker", "stop", "--time", "60", victim], check=True, capture_output=True)
        found = answers.result()
    assert {answer.status_code for answer in found} == {200}
    assert all(answer.json()["usage"]["completion_tokens"] > 0 for answer in found)
    if end == "stopped":
        state = json.loads(subprocess.run(["docker", "inspect", victim], capture_output=True, check=True).stdout)
        assert state[0]["State"]["ExitCode"] == 0
        subprocess.run(["docker", "start", victim], check=True, capture_output=True)
    wait_until(lambda: usable_miners(fleet) == MINERS, READY_SECONDS, "the miner is back")


def test_an_answer_is_streamed_piece_by_piece(fleet: Stack, pin: ModelPin) -> None:
    document = body(pin.model_name, tokens=64) | {"stream": True, "ignore_eos": True}
    begun = time.monotonic()
    with requests.post(fleet.url() + "/v1/chat/completions", json=document, stream=True, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        moments = [time.monotonic() - begun for line in answer.iter_lines(chunk_size=1) if line.startswith(b"data: {")]
    assert len(moments) >= 64
    # A gateway that collects the answer gives all of it at the end.
    assert moments[8] < 0.7 * moments[-1]


def test_a_body_passes_up_to_the_miner_s_own_limit(fleet: Stack, pin: ModelPin) -> None:
    def sent(size: int) -> int:
        document = json.dumps(body(pin.model_name, tokens=1) | {"metadata": {"x": ""}})
        document = document.replace('"x": ""', f'"x": "{"x" * (size - len(document))}"')
        assert len(document) == size
        headers = {"Content-Type": "application/json"}
        return requests.post(
            fleet.url() + "/v1/chat/completions", data=document, headers=headers, timeout=60
        ).status_code

    assert sent(BODY_LIMIT) == 200
    assert sent(BODY_LIMIT + 1) == 413


def test_the_gateway_leads_to_the_downloader_and_answers_for_itself(fleet: Stack) -> None:
    url = fleet.url()
    assert requests.get(url + "/api/v1/status", timeout=10).json()["models"]
    assert requests.get(url + "/v1/models", timeout=10).json()["data"][0]["r3mes"]
    assert requests.get(url + "/healthz", timeout=10).text == "alive\n"
    assert requests.get(url + "/readyz", timeout=10).text == "ready\n"
    assert requests.get(url + "/metrics", timeout=10).status_code == 404
    published = fleet.inspect("gateway")["NetworkSettings"]
    assert isinstance(published, dict)
    assert {port for port, places in published["Ports"].items() if places} == {"8000/tcp"}


def test_every_service_may_be_restarted_in_turn(fleet: Stack, pin: ModelPin) -> None:
    for service in ("redis", "downloader", "verifier", "miner", "gateway", "prometheus"):
        fleet.run("restart", service)
        assert ask(fleet, pin.model_name), service
    wait_until(lambda: usable_miners(fleet) == MINERS, READY_SECONDS, "all miners are back")
    wait_until(lambda: redis_up(fleet), 60, "the downloader reaches Redis")


def test_redis_may_be_away_for_a_minute(fleet: Stack, pin: ModelPin) -> None:
    fleet.run("stop", "redis")
    begun = time.monotonic()
    wait_until(lambda: not redis_up(fleet), 60, "the downloader misses Redis")
    while time.monotonic() - begun < 60:
        assert ask(fleet, pin.model_name)
    fleet.run("start", "redis")
    wait_until(lambda: redis_up(fleet), 60, "the downloader reaches Redis again")
    assert restarts(fleet, "downloader", "verifier") == [0, 0]


def redis_up(stack: Stack) -> bool:
    """What the downloader says."""
    return bool(requests.get(stack.url() + "/api/v1/status", timeout=10).json()["redis_up"])


def restarts(stack: Stack, *services: str) -> list[object]:
    """How often Docker has started these again since they were last started by hand."""
    return [stack.inspect(service)["RestartCount"] for service in services]


def test_without_a_miner_a_request_is_told_so_and_when_to_come_back(fleet: Stack, pin: ModelPin) -> None:
    fleet.run("up", "--detach", "--no-recreate", "--scale", "miner=0")
    wait_until(lambda: not fleet.answers("/readyz"), 60, "the gateway knows of no miner")
    answer = timed(lambda: requests.post(fleet.url() + "/v1/chat/completions", json=body(pin.model_name), timeout=30))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["code"] == "service_unavailable"
    assert requests.get(fleet.url() + "/api/v1/status", timeout=10).ok
    scale(fleet, MINERS)


def timed(act: Callable[[], requests.Response]) -> requests.Response:
    """Return the answer, which has to come at once."""
    begun = time.monotonic()
    answer = act()
    assert time.monotonic() - begun < 5
    return answer
