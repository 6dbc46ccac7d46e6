"""Rules about the tree itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = sorted((REPOSITORY / "locks").glob("*.txt"))
SOURCES = sorted(
    path for top in ("shared", "services", "launcher", "locks", "tests") for path in (REPOSITORY / top).rglob("*.py")
)
DOCKERFILES = sorted([*REPOSITORY.glob("services/*/Dockerfile"), REPOSITORY / "launcher" / "Dockerfile"])
MAX_LINES = 400


def requirements(lock: Path) -> dict[tuple[str, str], str]:
    """Return {(name, marker): version} of a lock."""
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)(?: ; (.+?))? \\$", lock.read_text())
    return {(name, marker): version for name, version, marker in found}


def test_no_service_imports_another_and_shared_imports_none() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    assert not re.search(
        r"://|^\s*-[-a-z]|file:|@ ", re.sub(r"(?m)^    --hash=\S+|^\s*#.*$", "", lock.read_text()), re.MULTILINE
    )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_everything_by_hash(lock: Path) -> None:
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text())[1:]
    assert entries
    for entry in entries:
        assert re.match(r"\S+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_agree_on_versions(lock: Path) -> None:
    development = requirements(REPOSITORY / "locks" / "dev.txt")
    for key, version in requirements(lock).items():
        assert development.get(key, version) == version, key


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_ends_as_an_ordinary_user_and_fetches_no_frontend(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    user = re.findall(r"(?m)^USER (\d+):(\d+)$", text)
    assert user and user[-1][0] != "0"  # noqa: PT018
    assert "syntax=" not in text
    stages = set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", text))
    arguments = dict(re.findall(r"(?m)^ARG (\w+)=(\S+)$", text))
    named = [re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], name) for name in re.findall(r"(?m)^FROM (\S+)", text)]
    bases = [name for name in named if name not in stages]
    assert bases == ["python:3.13-slim-trixie"] * 2
