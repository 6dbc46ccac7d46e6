"""Two models on one host, as `r3mes fleet` writes it down: real miners for each, one gateway in front of all."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from launcher.demo.places import find_model_file
from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import fleet_command, need_engine, stack_with_origin
from tests.support.downloader_process import sha256
from tests.support.waiting import wait_until
from tests.support.whole_stack import READY_SECONDS, answered, body, kill_container

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

SECOND = "Second/Model:1"  # a name that is no host's name


def second_model() -> bytes:
    """The same weights under another name of the same length: another digest, and llama.cpp loads it as well."""
    data = find_model_file().read_bytes()
    assert data.count(b"Smollm2 135M 8k Lc100K Mix1 Ep2", 0, 4096) == 1
    return data.replace(b"Smollm2 135M 8k Lc100K Mix1 Ep2", b"Smollm2 under another name, Ep2", 1)


def second_entry(data: bytes) -> dict[str, object]:
    return {
        "model_name": SECOND,
        "file_name": "second.gguf",
        "download_source": "http://second:9000/owner/second/resolve/main/second.gguf",
        "verification_sha256": sha256(data),
        "required_disk_space_gb": 0.2,
        "ipfs_fallback_hash": "",
    }


@pytest.fixture(scope="module")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two miners for the default model and one for the second."""
    need_engine()
    data = second_model()
    folder = tmp_path_factory.mktemp("second")
    folder.chmod(0o755)
    (folder / "second.gguf").write_bytes(data)
    stack = stack_with_origin(
        tmp_path_factory.mktemp("stack"),
        pin,
        files=["docker-compose.yml", "compose.fleet.yml", "tests/e2e/beside.yml", "tests/e2e/two_models.yml"],
        environment={"E2E_SECOND": str(folder / "second.gguf")},
    )
    env = stack.directory / ".env"
    env.write_text(env.read_text() + "R3MES_ALLOW_HTTP_SOURCES=second:9000\n")
    genesis = stack.directory / "genesis" / "genesis.json"
    genesis.write_text(json.dumps({"models": [*entries(genesis), second_entry(data)]}))
    fleet_command(stack, "--processor", f"{pin.model_name}=2", "--processor", f"{SECOND}=1")
    with stack:
        stack.build()
        stack.up()
        yield stack


def entries(genesis: Path) -> list[object]:
    """The models of a genesis of either plain form."""
    document = json.loads(genesis.read_bytes())
    return list(document["models"]) if "models" in document else [document]


def container(stack: Stack, service: str) -> str:
    return stack.run("ps", "--quiet", service).strip()


def served(stack: Stack, model: str) -> requests.Response:
    return requests.post(stack.url() + "/v1/chat/completions", json=body(model), timeout=180)


def test_a_request_goes_to_a_miner_of_its_model_and_to_no_other(stack: Stack, pin: ModelPin) -> None:
    for model in (pin.model_name, SECOND):
        wait_until(lambda model=model: served(stack, model).status_code == 200, READY_SECONDS, f"{model} answers")
    places = {service: container(stack, service) for service in ("miner-1", "miner-2", "miner-3")}
    before = {service: answered(place) for service, place in places.items()}
    answers = [served(stack, model) for model in [pin.model_name] * 6 + [SECOND] * 4]
    assert [answer.json()["model"] for answer in answers] == [pin.model_name] * 6 + [SECOND] * 4
    new = {service: answered(place) - before[service] for service, place in places.items()}
    assert new["miner-1"] + new["miner-2"] == 6
    assert new["miner-3"] == 4


def test_the_gateway_lists_both_and_refuses_a_third(stack: Stack, pin: ModelPin) -> None:
    listed = requests.get(stack.url() + "/v1/models", timeout=10).json()["data"]
    assert [model["id"] for model in listed] == [pin.model_name, SECOND]
    refused = served(stack, "Third")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"


def test_a_model_without_a_miner_is_a_503_and_the_other_goes_on(stack: Stack, pin: ModelPin) -> None:
    stack.run("stop", "miner-3")
    try:
        gone = served(stack, SECOND)
        assert gone.status_code == 503
        assert int(gone.headers["Retry-After"]) > 0
        assert served(stack, pin.model_name).status_code == 200
        kill_container(container(stack, "miner-1"))
        assert served(stack, pin.model_name).status_code == 200  # by miner-2
    finally:
        stack.run("start", "miner-3")
    wait_until(lambda: served(stack, SECOND).status_code == 200, READY_SECONDS, "its miner is back")
