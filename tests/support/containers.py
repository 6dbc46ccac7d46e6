"""What the container tests share: an engine that answers, and looks at volumes through `init`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest

from launcher.demo.places import find_model_file
from shared.genesis import ModelPin, parse_genesis
from tests.support.compose import REPOSITORY, Stack


def need_engine() -> None:
    """Skip where no Docker Engine answers."""
    command = ["docker", "info"]
    if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no Docker Engine answers")


def as_init(stack: Stack, program: str) -> str:
    """Run a Python program with the mounts and capabilities of `init`."""
    return stack.run("run", "--rm", "--no-deps", "-T", "init", "python", "-c", program)


def rights(stack: Stack, root: str, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return owner, group and mode of what lies in a volume of `init`."""
    program = (
        "import json, os\n"
        f"for path in {list(paths)!r}:\n"
        f"    s = os.stat('{root}/' + path)\n"
        "    print(json.dumps([path, s.st_uid, s.st_gid, s.st_mode & 0o7777]))"
    )
    return {path: tuple(rest) for path, *rest in map(json.loads, as_init(stack, program).splitlines())}


def default_pin() -> ModelPin:
    """The one model of the default genesis."""
    path = REPOSITORY / "genesis" / "genesis.json"
    return parse_genesis(path.read_bytes(), file=str(path)).models[0]


def stack_with_origin(
    directory: Path,
    pin: ModelPin,
    origin: str = "",
    *,
    files: Sequence[str] = ("docker-compose.yml", "tests/e2e/beside.yml"),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Stack:
    """The stack as it is, not started, beside it an origin that has the default model; `origin` is an option of it."""
    stack = Stack(
        directory,
        files=files,
        environment={
            "E2E_MODEL": str(find_model_file()),
            "E2E_NAME": urlsplit(pin.download_source).path.rpartition("/")[2],
        }
        | ({"E2E_ORIGIN": origin} if origin else {})
        | dict(environment),
    )
    # Several miners on few processors: with more threads than those, each waits for the others' at every step.
    (stack.directory / ".env").write_text("HF_ENDPOINT=http://origin:9000\nR3MES_THREADS=1\n")
    return stack


def fleet_command(stack: Stack, *options: str) -> None:
    """What an operator does in the project's folder: `r3mes fleet …`."""
    command = [sys.executable, "-m", "launcher", "fleet", *options]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=stack.directory, env=environment, check=True, capture_output=True)
