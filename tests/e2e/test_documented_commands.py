"""The lines of Compose in README and docs, typed beside a stack that runs; it answers after each of them."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.places import find_model_file
from shared.errors import ExitCode
from shared.genesis import ModelPin
from tests.support.command_lines import Kind, of_kind
from tests.support.compose import Stack
from tests.support.whole_stack import ask, whole_stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

# What is not typed here, and who does it instead.
NOT_HERE = {
    r"up --build --detach": "the stack's own start, in conftest.py",
    r"build": "the stack's own start, in conftest.py",
    r"up --detach --scale miner=3": "test_whole_fleet.py",
    r"run .* init join .*": "test_joined.py",
    r"pull --ignore-buildable": "asks registries",
    r"logs --follow .*": "never ends",
    r"exec miner nvidia-smi": "needs a GPU",
}
LINES = list(dict.fromkeys(command.removeprefix("docker compose ") for _, command in of_kind(Kind.COMPOSE)))
TYPED = [line for line in LINES if not any(re.fullmatch(pattern, line) for pattern in NOT_HERE)]


@pytest.fixture(scope="module")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of this file's own: services that begin again count from 0, and others' tests look at counts."""
    with whole_stack(tmp_path_factory.mktemp("stack"), pin) as stack:
        yield stack


@pytest.fixture(scope="module")
def folder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this host with the file of the pinned model."""
    folder = tmp_path_factory.mktemp("downloads")
    shutil.copy(find_model_file(), folder / "model.gguf")
    folder.chmod(0o755)
    assert stack.directory.is_dir()
    return folder


def words(line: str, folder: Path) -> list[str]:
    """Return the words of a line, with the test's folder, and without a terminal."""
    line = line.replace("$HOME/Downloads", str(folder)).replace("$PWD", str(folder))
    return shlex.split(re.sub(r"^run ", "run -T ", line))


def test_every_line_is_typed_here_or_somewhere_else() -> None:
    assert len(TYPED) > 10
    for pattern in NOT_HERE:
        assert any(re.fullmatch(pattern, line) for line in LINES), f"no line is {pattern} any more"


@pytest.mark.parametrize("line", TYPED)
def test_a_line_ends_well_and_the_stack_answers_afterwards(
    line: str, stack: Stack, pin: ModelPin, folder: Path
) -> None:
    if line.endswith("r3mes doctor"):  # it may find something: no network, no GPU
        assert stack.exit_code(*words(line, folder)) in set(ExitCode) - {ExitCode.USAGE}
        return
    stack.run(*words(line, folder))
    if line.startswith(("up", "kill")):
        stack.up()
        assert ask(stack, pin.model_name)
