"""HAProxy with the configuration that the stack mounts, before servers that misbehave on purpose, which miners do not.

Three of them: two are `miner`, one serves a second model. Docker's network and DNS are real, and so are all bytes.
"""

import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from launcher.fleet import alias, gateway_backends, read_pools
from tests.support.compose import REPOSITORY
from tests.support.containers import need_engine
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

FIRST, SECOND = "First", "The 2nd's model"
IMAGE = "python:3.13-slim-trixie"


def docker(*arguments: str) -> str:
    """Run `docker …` and return what it prints."""
    return subprocess.run(
        ["docker", *arguments], capture_output=True, check=True, text=True, timeout=120
    ).stdout.strip()


@dataclass
class Gateway:
    """A gateway that runs; `shared` is what its servers write into."""

    url: str
    shared: Path

    def post(self, document: object, first: str = "", raw: bytes | None = None) -> requests.Response:
        """Send a completion; `first` is what the first server that gets it does instead of answering."""
        body = json.dumps(document).encode() if raw is None else raw
        headers = {"Content-Type": "application/json", "X-Id": uuid.uuid4().hex, "X-First": first}
        answer = requests.post(self.url + "/v1/chat/completions", data=body, headers=headers, timeout=60)
        answer.headers["X-Seen-By"] = " ".join(self.seen_by(headers["X-Id"]))
        return answer

    def seen_by(self, request: str) -> list[str]:
        """The servers that got a request, in order."""
        lines = (self.shared / "seen").read_text().splitlines() if (self.shared / "seen").exists() else []
        return [line.split()[1] for line in lines if line.split()[0] == request]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two models, at most one request a server, at most two that wait."""
    need_engine()
    directory = tmp_path_factory.mktemp("gateway")
    directory.chmod(0o755)
    shared, configuration = directory / "shared", directory / "configuration"
    shared.mkdir()
    shared.chmod(0o777)
    shutil.copytree(REPOSITORY / "deploy" / "gateway", configuration)
    pools = read_pools([FIRST, SECOND], gpus=(), processors=("2", f"{SECOND}=1"), hosts=())
    (configuration / "models.cfg").write_text(gateway_backends(pools))
    name = f"r3mes-gateway-{uuid.uuid4().hex[:8]}"
    containers = []
    docker("network", "create", name)
    try:
        for server, names in (("a", ["miner", alias(FIRST)]), ("b", ["miner", alias(FIRST)]), ("c", [alias(SECOND)])):
            aliases = [word for one in names for word in ("--network-alias", one)]
            script = REPOSITORY / "tests" / "e2e" / "fake_miner.py"
            mounts = ["-v", f"{script}:/fake_miner.py:ro", "-v", f"{shared}:/shared"]
            run = ["run", "--detach", "--network", name, *aliases, "-e", f"NAME={server}", *mounts, IMAGE]
            containers.append(docker(*run, "python3", "/fake_miner.py"))
        settings = {"SECONDS": "60", "QUEUE": "2", "SERVER_MAXCONN": "1", "TLS": ""}
        settings |= {"MINERS": "miner:8080", "DOWNLOADER": "downloader:8081"}
        given = [word for key, value in settings.items() for word in ("-e", f"GATEWAY_{key}={value}")]
        place = "/usr/local/etc/haproxy"
        run = [
            "run",
            "--detach",
            "--network",
            name,
            "-p",
            "127.0.0.1::8000",
            *given,
            "-v",
            f"{configuration}:{place}:ro",
        ]
        containers.append(docker(*run, "haproxy:3.0", "haproxy", "-W", "-db", "-f", place))
        url = "http://" + docker("port", containers[-1], "8000").splitlines()[0]
        found = Gateway(url, shared)
        wait_until(lambda: answers(url, SECOND) and answers(url, FIRST), 60, "the gateway knows its servers")
        yield found
    finally:
        for container in containers:
            print(docker("logs", "--tail", "40", container))  # noqa: T201  pytest shows it on failure
        docker("rm", "--force", *containers)
        docker("network", "rm", name)


def answers(url: str, model: str) -> bool:
    try:
        return requests.post(url + "/v1/chat/completions", json={"model": model}, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.mark.parametrize("filler", ["", "x" * 200_000], ids=["a short request", "one as long as a conversation may be"])
def test_a_request_goes_to_a_server_of_its_model_wherever_the_name_stands(gateway: Gateway, filler: str) -> None:
    assert gateway.post({"messages": filler, "model": SECOND}).json()["served_by"] == "c"
    assert gateway.post({"model": FIRST, "messages": filler}).json()["served_by"] in "ab"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "nobody\'s"}',
        b"{}",
        b'{"model": 7}',
        b"not json",
        b"",
        b'{"model": "miners"}',
        b'{"model": "\\u0000"}',
    ],
)
def test_what_names_no_model_of_this_fleet_is_for_a_miner_to_refuse(gateway: Gateway, raw: bytes) -> None:
    answer = gateway.post(None, raw=raw)
    assert answer.status_code == 200
    assert answer.json() == {"served_by": answer.json()["served_by"], "bytes": len(raw)}


def test_all_models_are_listed(gateway: Gateway) -> None:
    listed = requests.get(gateway.url + "/v1/models", timeout=10).json()
    assert [model["id"] for model in listed["data"]] == [FIRST, SECOND]


@pytest.mark.parametrize("fault", ["die", "503"])
def test_a_request_that_nobody_began_to_answer_is_sent_whole_to_another_server(gateway: Gateway, fault: str) -> None:
    document = {"model": FIRST, "messages": "x" * 100_000}
    answer = gateway.post(document, fault)
    assert answer.status_code == 200
    assert answer.json()["bytes"] == len(json.dumps(document))
    assert sorted(answer.headers["X-Seen-By"].split()) == ["a", "b"]


@pytest.mark.parametrize("fault", ["422", "500"])
def test_an_answer_that_is_one_is_not_asked_for_again(gateway: Gateway, fault: str) -> None:
    answer = gateway.post({"model": FIRST}, fault)
    assert answer.status_code == int(fault)
    assert len(answer.headers["X-Seen-By"].split()) == 1


def test_a_request_too_long_to_keep_is_not_sent_twice_and_its_loss_is_told(gateway: Gateway) -> None:
    answer = gateway.post({"model": FIRST, "messages": "x" * 1_000_000}, "die")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "bad_gateway"
    assert len(answer.headers["X-Seen-By"].split()) == 1


def test_more_than_may_wait_are_told_when_to_come_back(gateway: Gateway) -> None:
    asked = threading.Barrier(9)

    def one(_: int) -> requests.Response:
        asked.wait()
        return gateway.post({"model": FIRST}, "wait")

    with ThreadPoolExecutor(9) as threads:
        results = [threads.submit(one, number) for number in range(9)]
        # Two run, two wait; the other five are answered at once.
        wait_until(lambda: sum(result.done() for result in results) == 5, 30, "five are refused")
        (gateway.shared / "go").touch()
        found = [result.result() for result in results]
    assert sorted(answer.status_code for answer in found) == [200] * 4 + [429] * 5
    refused = next(answer for answer in found if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["error"]["code"] == "queue_full"
