"""Alerts fire in a whole stack because the fault is there, and end when it is gone; without a fault none fires.

The stack of docker-compose.yml, its Prometheus with the operator's rules, every duration divided by thirty
(`tests/support/hurried_rules.py`). The tests follow each other on one stack, and each leaves it in order.
"""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import as_init, need_engine, stack_with_origin
from tests.support.hurried_rules import hurry
from tests.support.waiting import wait_until
from tests.support.whole_stack import ask, body

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

FIRES_SECONDS = 120.0
PAST_SECONDS = 240.0  # what looks back an hour looks back two minutes here
CALM_SECONDS = 60
CLIENTS = 4
CROWD = 32  # with R3MES_MAX_SEQUENCES and R3MES_MAX_QUEUE of 4: 8 at the miner, 4 in line, the rest is refused
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
SETTINGS = """R3MES_IPFS_GATEWAYS=http://origin:9000
R3MES_SCRUB_HOURS=0.002
R3MES_MAX_SEQUENCES=4
R3MES_MAX_QUEUE=4
"""


def asked(stack: Stack, path: str, **parameters: str) -> dict[str, object]:
    url = stack.url("prometheus", 9090) + path
    answer = requests.get(url, params=parameters, timeout=30)
    assert answer.ok, answer.text
    data = answer.json()["data"]
    assert isinstance(data, dict)
    return data


def firing(stack: Stack) -> set[str]:
    """The alerts that fire now."""
    alerts = asked(stack, "/api/v1/alerts")["alerts"]
    assert isinstance(alerts, list)
    return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def wait_for(stack: Stack, *names: str) -> None:
    def fire() -> bool:
        assert set(names) <= (now := firing(stack)), now
        return True

    wait_until(fire, FIRES_SECONDS, f"{', '.join(names)} fires")


def wait_for_end_of(stack: Stack, *names: str, within: float = PAST_SECONDS) -> None:
    def quiet() -> bool:
        assert not set(names) & (now := firing(stack)), now
        return True

    wait_until(quiet, within, f"{', '.join(names)} is over")


def serve(stack: Stack, *options: str) -> None:
    """Let the origin run with these options."""
    env = stack.directory / ".env"
    lines = [line for line in env.read_text().splitlines() if not line.startswith("E2E_ORIGIN=")]
    env.write_text("\n".join([*lines, *(f"E2E_ORIGIN={option}" for option in options)]) + "\n")
    stack.run("up", "--detach", "--no-deps", "origin")


def pin_changed(stack: Stack, **changes: object) -> None:
    """Write the operator's genesis anew, with changes to its one model."""
    path = stack.directory / "genesis" / "genesis.json"
    document = json.loads(path.read_text())
    document["models"][0].update(changes)
    path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that begins with an origin whose bytes are wrong, and an IPFS gateway that does not have the file."""
    need_engine()
    stack = stack_with_origin(tmp_path_factory.mktemp("stack"), pin)
    hurry(stack.directory / "monitoring" / "prometheus")
    pin_changed(stack, ipfs_fallback_hash=CID)
    with (stack.directory / ".env").open("a") as env:
        env.write(SETTINGS + "E2E_ORIGIN=--tamper\n")
    with stack:
        stack.build()
        stack.run("up", "--detach")
        yield stack


@contextmanager
def clients(stack: Stack, pin: ModelPin, count: int) -> Iterator[list[int]]:
    """So many clients that ask again and again; yields the statuses of their answers so far."""
    stop = threading.Event()
    statuses: list[int] = []

    def one(number: int) -> None:
        document = body(pin.model_name, tokens=16, content=f"Tell me {number} things about rain.")
        while not stop.is_set():
            answer = requests.post(stack.url() + "/v1/chat/completions", json=document, timeout=180)
            statuses.append(answer.status_code)
            stop.wait(0.5 if answer.status_code != 200 else 0.0)

    with ThreadPoolExecutor(count) as threads:
        asking = [threads.submit(one, number) for number in range(count)]
        try:
            yield statuses
        finally:
            stop.set()
            for each in asking:
                each.result()


def test_wrong_bytes_a_fallback_and_no_miner_are_told_until_the_right_bytes_come(stack: Stack, pin: ModelPin) -> None:
    wait_for(stack, "HashMismatch", "FallbackInUse", "NoReadyMiner")
    serve(stack, "--pace=1e10")
    requests.post(f"{stack.url()}/api/v1/models/{pin.sha256}/retry", timeout=30).raise_for_status()
    ask(stack, pin.model_name)
    wait_for_end_of(stack, "NoReadyMiner", within=60)
    wait_for_end_of(stack, "HashMismatch", "FallbackInUse", "DownloadFailed")


def test_nothing_fires_while_everything_works(stack: Stack, pin: ModelPin) -> None:
    wait_until(lambda: not firing(stack), PAST_SECONDS, "what was wrong is past")
    calm = f'count_over_time(ALERTS{{alertstate="firing"}}[{CALM_SECONDS}s])'
    with clients(stack, pin, CLIENTS) as statuses:
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > CALM_SECONDS, 2 * CALM_SECONDS, "a minute of load is over")
        assert asked(stack, "/api/v1/query", query=calm)["result"] == []
    assert set(statuses) == {200}
    assert len(statuses) >= CLIENTS


def test_a_redis_that_is_away_is_told_until_it_is_back(stack: Stack) -> None:
    stack.run("stop", "redis")
    wait_for(stack, "RedisAway")
    stack.run("start", "redis")
    wait_for_end_of(stack, "RedisAway")


def test_a_fleet_without_a_miner_is_told_until_one_is_ready(stack: Stack, pin: ModelPin) -> None:
    stack.run("stop", "miner")
    wait_for(stack, "NoReadyMiner")
    stack.run("start", "miner")
    ask(stack, pin.model_name)
    wait_for_end_of(stack, "NoReadyMiner")


def test_refused_requests_are_told_while_there_are_too_many(stack: Stack, pin: ModelPin) -> None:
    with clients(stack, pin, CROWD) as statuses:
        wait_for(stack, "QueueFull")
    assert set(statuses) == {200, 429}
    wait_for_end_of(stack, "QueueFull")


def test_a_verified_file_that_changes_is_told_and_fetched_again(stack: Stack, pin: ModelPin) -> None:
    path = f"/models/verified/{pin.sha256}/{pin.file_name}"
    as_init(stack, f"with open({path!r}, 'r+b') as file:\n    file.seek(50_000_000)\n    file.write(b'tampered')")
    wait_for(stack, "VerifiedFileTampered")
    ask(stack, pin.model_name)
    wait_for_end_of(stack, "VerifiedFileTampered")


def test_a_download_that_stalls_is_told_and_goes_on_where_it_was(stack: Stack, pin: ModelPin) -> None:
    url = f"{stack.url()}/api/v1/models/{pin.sha256}"

    def received() -> int:
        status = requests.get(url, timeout=10).json()
        assert status["state"] == "downloading", status
        return int(status["received_bytes"])

    serve(stack, "--pace=1e6")
    as_init(stack, f"import shutil; shutil.rmtree('/models/verified/{pin.sha256}', ignore_errors=True)")
    wait_until(received, 90, "the first bytes")
    stack.run("pause", "origin")
    wait_for(stack, "DownloadStalled")
    stack.run("unpause", "origin")
    serve(stack, "--pace=1e10")
    ask(stack, pin.model_name)
    wait_for_end_of(stack, "DownloadStalled")


def test_another_genesis_is_told(stack: Stack, pin: ModelPin) -> None:
    pin_changed(stack, required_disk_space_gb=0.2)
    stack.run("run", "--rm", "--no-deps", "-T", "init", "r3mes", "genesis", "accept", "--yes")
    wait_for(stack, "GenesisChanged")
    assert ask(stack, pin.model_name)
    wait_for_end_of(stack, "GenesisChanged")
