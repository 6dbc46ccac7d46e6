"""One Compose stack for the container tests: a copy of the tree, a name of its own, ports that nobody else has."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ("R3MES_", "HF_", "COMPOSE_")  # of the one who runs the tests, who may have a stack of his own
BUILD_SECONDS = 3000  # the miner's image compiles llama.cpp
COMMAND_SECONDS = 300


class Stack:
    """`docker compose` on a copy of the working tree in `directory`, under a project name that nobody else has.

    `environment` is what the shell would have; `.env` in the copy is the operator's file. As a context manager it shows
    its log at the end, and is removed with its volumes and images.
    """

    def __init__(self, directory: Path, *, files: Sequence[str], environment: dict[str, str]) -> None:
        self.directory = directory
        self._files = tuple(files)
        self.project = f"r3mes-e2e-{secrets.token_hex(4)}"
        self._compose = ["docker", "compose", "-p", self.project, *(word for file in files for word in ("-f", file))]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        self._environment = inherited | environment
        self.first_answer_seconds = 0.0  # from `up`, its images built, to the first answer; whoever measures it sets it
        copy_tree(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print(self.run("logs", "--no-color", "--tail", "60", check=False))  # noqa: T201  pytest shows it on failure
        self.down("--volumes", "--rmi", "local", "--timeout", "10")

    def run(self, *arguments: str, check: bool = True, seconds: float = COMMAND_SECONDS) -> str:
        """Run `docker compose …` and return its stdout; fails the test with everything it said."""
        result = subprocess.run(
            [*self._compose, *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(
                f"`docker compose {' '.join(arguments)}` ended with {result.returncode}:\n"
                f"{result.stdout[-4000:]}\n{result.stderr[-8000:]}"
            )
        return result.stdout

    def exit_code(self, *arguments: str) -> int:
        """Run `docker compose …` and return how it ended."""
        return subprocess.run(
            [*self._compose, *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        ).returncode

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `r3mes …` on this host, in the project's folder, as its operator."""
        files = {"COMPOSE_FILE": ":".join(self._files), "COMPOSE_PROJECT_NAME": self.project}
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=self.directory,
            env=self._environment | files | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def build(self) -> None:
        """Build the images; minutes the first time."""
        self.run("build", seconds=BUILD_SECONDS)

    def up(self) -> None:
        """Start, and return when every service is healthy, which says nothing about models."""
        self.run("up", "--detach", "--wait")

    def down(self, *options: str) -> None:
        """Stop and remove the containers; `--volumes` removes the models as well."""
        self.run("down", "--remove-orphans", *options)

    def python(self, service: str, program: str) -> str:
        """Run a Python program inside a running container and return what it prints."""
        return self.run("exec", "-T", service, "python", "-c", program).strip()

    def inspect(self, service: str) -> dict[str, object]:
        """What Docker says about the service's container."""
        container = self.run("ps", "--quiet", "--all", service).split()
        output = subprocess.run(["docker", "inspect", *container], capture_output=True, check=True, text=True).stdout
        document: dict[str, object] = json.loads(output)[0]
        return document

    def kill(self, service: str) -> None:
        """SIGKILL to the service's first process, as a crash: `docker kill` would count as the operator's wish."""
        state = self.inspect(service)["State"]
        assert isinstance(state, dict)
        subprocess.run(
            ["docker", "run", "--rm", "--pid=host", "--privileged", "python:3.13-slim-trixie",
             "python3", "-c", f"import os; os.kill({int(state['Pid'])}, 9)"],
            check=True,
        )  # fmt: skip

    def url(self, service: str = "gateway", port: int = 8000) -> str:
        """Where a port is published."""
        return "http://" + self.run("port", service, str(port)).strip()

    def answers(self, path: str) -> bool:
        """Whether a GET at the gateway is a 200 now."""
        try:
            return requests.get(self.url() + path, timeout=5).ok
        except requests.RequestException:
            return False


def copy_tree(target: Path) -> None:
    """Copy what git tracks or would track, as a fresh clone with the changes at hand."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
