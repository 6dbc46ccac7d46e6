"""`r3mes init credentials`: Redis's passwords and rights as files, for the secrets of a Swarm or of Kubernetes."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.credentials import ACL_FILE, URL_FILE, read_password
from shared.redis_rights import SERVICES, acl_file


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "init", "credentials", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("R3MES_")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("options", "node"), [((), "local"), (("--node", "here"), "here"), (("--every-node",), "*")])
def test_they_are_made_for_whoever_runs_it(tmp_path: Path, options: tuple[str, ...], node: str) -> None:
    folder = tmp_path / "new" / "credentials"
    done = run(folder, *options)
    assert done.returncode == 0, done.stderr
    passwords = {service: read_password(folder / service) or "" for service in SERVICES}
    assert all(passwords.values())
    assert (folder / "redis" / ACL_FILE).read_text() == acl_file(node, passwords)
    for path in (folder / "redis" / ACL_FILE, *(folder / service / URL_FILE for service in SERVICES)):
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o400)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for password in passwords.values():
        assert password not in done.stdout + done.stderr


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    assert run(tmp_path / "made").returncode == 0
    before = {path: path.stat().st_ino for path in (tmp_path / "made").rglob("*")}
    assert run(tmp_path / "made").returncode == 0
    assert {path: path.stat().st_ino for path in (tmp_path / "made").rglob("*")} == before


@pytest.mark.parametrize("node", ["", "Here", "a b", "x\nuser evil on nopass +@all", "*"])
def test_a_name_that_is_none_makes_no_rights(tmp_path: Path, node: str) -> None:
    done = run(tmp_path / "made", "--node", node)
    assert done.returncode == 2
    assert not (tmp_path / "made").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path / "file" / "made")
    assert done.returncode == 2
    assert "cannot make" in done.stderr
