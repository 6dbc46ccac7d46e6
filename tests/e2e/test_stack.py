"""The stack in containers: from the default genesis to an answer, and every service within its bounds.

One stack for the module, in the order of the tests: each leaves it running and able to answer.
"""

import errno
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from launcher.demo.places import find_model_file
from shared.genesis import ModelPin, parse_genesis
from tests.support.compose import REPOSITORY, Stack
from tests.support.containers import need_engine, rights
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

READY_SECONDS = 240.0
# (user, group), parts of the store and whether they are writable, networks: the table of the design.
TABLE = {
    "downloader": (
        (10001, 10000),
        {"trust": False, "incoming": True, "verified": False, "rejected": False},
        {"default", "control", "inference"},
    ),
    "verifier": (
        (10002, 10000),
        {"trust": False, "incoming": True, "verified": True, "rejected": True},
        {"control"},
    ),
    "miner": ((10003, 10003), {"trust": False, "verified": False}, {"inference"}),
}


@pytest.fixture(scope="module")
def pin() -> ModelPin:
    """The one model of the default genesis."""
    path = REPOSITORY / "genesis" / "genesis.json"
    return parse_genesis(path.read_bytes(), file=str(path)).models[0]


@pytest.fixture(scope="module")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of docker-compose.yml as it is, with an origin beside it; removed with its volumes at the end."""
    need_engine()
    model = find_model_file()
    stack = Stack(
        tmp_path_factory.mktemp("stack"),
        files=["docker-compose.yml", "tests/e2e/origin.yml"],
        environment={"E2E_MODEL": str(model), "E2E_NAME": urlsplit(pin.download_source).path.rpartition("/")[2]},
    )
    (stack.directory / ".env").write_text("HF_ENDPOINT=http://origin:9000\n")
    try:
        stack.build()
        stack.up()
        yield stack
    finally:
        print(stack.run("logs", "--no-color", "--tail", "60", check=False))  # noqa: T201  pytest shows it on failure
        stack.down("--volumes", "--rmi", "local", "--timeout", "10")


def ask(stack: Stack, model: str) -> str:
    """Wait until the miner can serve, ask it something and return the answer, whatever so small a model says."""
    wait_until(lambda: stack.answers(8080, "/readyz"), READY_SECONDS, "the miner is ready")
    response = requests.post(
        stack.url(8080) + "/v1/chat/completions",
        json={
            "model": model,
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "max_tokens": 24,
            "temperature": 0,
        },
        timeout=120,
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == model
    assert answer["usage"]["completion_tokens"] > 0
    return str(answer["choices"][0]["message"]["content"]).strip()


def test_a_question_gets_an_answer(stack: Stack, pin: ModelPin) -> None:
    assert ask(stack, pin.model_name)
    assert received_bytes(stack) == pin.size_bytes


@pytest.mark.parametrize("service", TABLE)
def test_a_service_has_the_user_mounts_and_networks_of_the_table(stack: Stack, service: str) -> None:
    user, parts, networks = TABLE[service]
    found = stack.inspect(service)
    assert stack.python(service, "import os; print(os.getuid(), os.getgid())") == "{} {}".format(*user)
    assert isinstance(found["Mounts"], list)
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    credentials = {"/credentials": False} if "control" in networks else {}
    assert mounts == {f"/models/{part}": writable for part, writable in parts.items()} | credentials
    settings = found["NetworkSettings"]
    assert isinstance(settings, dict)
    assert set(settings["Networks"]) == {f"{stack.project}_{name}" for name in networks}


def test_the_store_has_the_owners_and_modes_of_the_table(stack: Stack, pin: ModelPin) -> None:
    paths = {
        "trust": (0, 0, 0o755),
        "trust/genesis.json": (0, 0, 0o644),
        "trust/accepted.json": (0, 0, 0o644),
        "incoming": (10001, 10000, 0o2770),
        "verified": (10002, 10000, 0o2755),
        f"verified/{pin.sha256}/{pin.file_name}": (10002, 10000, 0o444),
        f"verified/{pin.sha256}/receipt.json": (10002, 10000, 0o444),
        "rejected": (10002, 10000, 0o2750),
    }
    assert rights(stack, "/models", paths) == paths


def test_the_promoted_file_has_the_pinned_digest(stack: Stack, pin: ModelPin) -> None:
    program = (
        f"import hashlib; print(hashlib.file_digest(open('/models/verified/{pin.sha256}/{pin.file_name}', 'rb'), "
        "'sha256').hexdigest())"
    )
    assert stack.python("miner", program) == pin.sha256


@pytest.mark.parametrize("path", ["trust/genesis.json", "verified/wrong.gguf", "rejected/wrong.json"])
def test_the_downloader_cannot_write_where_trust_is_decided(stack: Stack, path: str) -> None:
    program = f"try:\n    open('/models/{path}', 'ab')\nexcept OSError as error:\n    print(error.errno)"
    assert int(stack.python("downloader", program)) in (errno.EROFS, errno.EACCES)


def test_the_miner_has_no_way_out_and_no_redis(stack: Stack) -> None:
    program = (
        "import socket\n"
        "for host, port in (('192.0.2.1', 443), ('redis', 6379), ('origin', 9000)):\n"
        "    try:\n        socket.create_connection((host, port), 3)\n        print('reached', host)\n"
        "    except OSError:\n        pass\n"
    )
    assert stack.python("miner", program) == ""


def test_the_checks_of_a_start_pass_while_it_runs(stack: Stack) -> None:
    assert stack.exit_code("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init", "check") == 0


def test_an_unknown_setting_stops_a_start_and_nothing_that_runs(stack: Stack, pin: ModelPin) -> None:
    env = stack.directory / ".env"
    before = env.read_text()
    env.write_text(before + "R3MES_GENESSIS=typo.json\n")
    try:
        assert stack.exit_code("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init") == 78
    finally:
        env.write_text(before)
    assert ask(stack, pin.model_name)


def test_a_flushed_redis_and_a_killed_service_come_back(stack: Stack, pin: ModelPin) -> None:
    # Nobody in the stack may FLUSHALL.
    restarted = restarts(stack, "redis")
    stack.run("exec", "-T", "redis", "sh", "-c", "rm -rf /data/* && kill 1")
    wait_until(lambda: restarts(stack, "redis") > restarted, 60, "Redis is started again")
    assert ask(stack, pin.model_name)
    for service in ("downloader", "verifier", "miner"):
        started = restarts(stack, service)
        stack.kill(service)
        wait_until(lambda s=service, n=started: restarts(stack, s) > n, 60, f"{service} is started again")  # type: ignore[misc]
        assert ask(stack, pin.model_name)
    wait_until(lambda: stack.answers(8081, "/readyz"), 60, "the downloader is ready")


def restarts(stack: Stack, service: str) -> int:
    """How often Docker has started the container again."""
    count = stack.inspect(service)["RestartCount"]
    assert isinstance(count, int)
    return count


def test_a_second_start_downloads_nothing(stack: Stack, pin: ModelPin) -> None:
    stack.down()
    stack.up()
    assert ask(stack, pin.model_name)
    assert received_bytes(stack) == 0


def received_bytes(stack: Stack) -> float:
    """What the downloader has taken from any source since it started."""
    metrics = requests.get(stack.url(8081) + "/metrics", timeout=10).text
    assert "r3mes_genesis_info" in metrics
    lines = [line for line in metrics.splitlines() if line.startswith("r3mes_download_bytes_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
