"""compose.torch.yml: a verified file that llama.cpp refuses is served by PyTorch, in a container like any other miner.

The image has some gigabytes, so these run only where it has been built:
COMPOSE_FILE=docker-compose.yml:compose.torch.yml docker compose build miner.
"""

import json
import subprocess
from collections.abc import Iterator

import pytest
import requests

from launcher.demo.places import find_model_file
from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import need_engine, stack_with_origin
from tests.support.downloader_process import sha256
from tests.support.whole_stack import ask

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

IMAGE = "r3mes-miner-torch"
# The number that a layer norm needs, under another name: llama.cpp refuses the model, transformers takes its default.
NEEDED, RENAMED = b"llama.attention.layer_norm_rms_epsilon", b"llama.attention.layer_norm_rms_epsilom"


@pytest.fixture(scope="module")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the image that is there, and a genesis that pins the changed file."""
    need_engine()
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        pytest.skip(f"the image {IMAGE} is not built")
    data = find_model_file().read_bytes().replace(NEEDED, RENAMED, 1)
    folder = tmp_path_factory.mktemp("origin")
    folder.chmod(0o755)
    (folder / "model.gguf").write_bytes(data)
    stack = stack_with_origin(
        tmp_path_factory.mktemp("stack"),
        pin,
        files=["docker-compose.yml", "compose.torch.yml", "tests/e2e/beside.yml"],
        environment={"E2E_MODEL": str(folder / "model.gguf")},
    )
    genesis = stack.directory / "genesis" / "genesis.json"
    genesis.write_text(genesis.read_text().replace(pin.sha256, sha256(data)))
    with stack:
        stack.run("build", "init", "downloader", "verifier", "origin", seconds=600)
        stack.up()
        yield stack


def test_what_llama_refuses_pytorch_serves_and_says_why(stack: Stack, pin: ModelPin) -> None:
    assert ask(stack, pin.model_name, within=900)
    (model,) = requests.get(stack.url() + "/v1/models", timeout=10).json()["data"]
    assert model["r3mes"]["engine"] == "torch"
    assert "layer_norm_rms_epsilon" in model["r3mes"]["engine_reason"]


def test_the_image_has_the_same_rights_as_the_other(stack: Stack) -> None:
    program = "import json, os; print(json.dumps([os.getuid(), os.access('/', os.W_OK)]))"
    state = json.loads(stack.python("miner", program))
    assert state == [10003, False]
