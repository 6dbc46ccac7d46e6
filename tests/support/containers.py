"""What the container tests share: an engine that answers, and looks at volumes through `init`."""

import json
import shutil
import subprocess
from collections.abc import Iterable

import pytest

from tests.support.compose import Stack


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
