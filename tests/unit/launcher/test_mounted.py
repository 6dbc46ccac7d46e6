"""What Compose mounts from a clone: whether the services' users can read it, and what the images copy from one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from launcher.mounted import MOUNTED, SECRETS, check_mounted
from shared.errors import ConfigurationError
from tests.support.compose import REPOSITORY


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is mounted from a project's folder, as one with the usual umask has it."""
    for folder in MOUNTED:
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    for folder in SECRETS:
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", tmp_path], check=True)
    return tmp_path


def test_a_usual_clone_can_be_read(clone: Path) -> None:
    check_mounted(clone)


def test_what_is_not_there_is_not_missed(tmp_path: Path) -> None:
    check_mounted(tmp_path)


@pytest.mark.parametrize("umask", ["027", "077"])
def test_a_clone_that_others_may_not_read_is_told_with_the_step_that_mends_it(clone: Path, umask: str) -> None:
    subprocess.run(["chmod", "-R", f"u=rwX,g={'rX' if umask == '027' else ''},o=", clone], check=True)
    with pytest.raises(ConfigurationError, match=r"cannot read deploy/gateway and [0-9]+ more") as refused:
        check_mounted(clone)
    _, _, command = (refused.value.next_step or "").partition(": ")
    subprocess.run(command, shell=True, cwd=clone, check=True)  # noqa: S602  (made here)
    check_mounted(clone)


def test_one_closed_file_is_named_and_an_editor_s_is_none(clone: Path) -> None:
    (clone / "deploy/gateway/.gateway.cfg.swp").touch(mode=0o600)
    check_mounted(clone)
    (clone / "monitoring/prometheus/rules/alerts.yml").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"cannot read monitoring/prometheus/rules/alerts\.yml$"):
        check_mounted(clone)


def test_a_folder_of_secrets_that_its_service_cannot_enter_is_told_and_its_files_stay_as_they_are(clone: Path) -> None:
    (clone / "secrets/tls/gateway.pem").touch(mode=0o600)
    (clone / "secrets/tls").chmod(0o700)
    with pytest.raises(ConfigurationError, match=r"cannot read secrets/tls$") as refused:
        check_mounted(clone)
    assert refused.value.next_step == "in the project's folder: chmod 755 secrets/tls"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_of_secrets_that_was_given_to_its_service_is_right(clone: Path) -> None:
    (clone / "secrets/tls").chmod(0o700)
    os.chown(clone / "secrets/tls", 99, 99)
    check_mounted(clone)


def test_what_is_looked_at_is_what_compose_mounts_from_the_project() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    mounts = [mount for name, service in services.items() if name != "init" for mount in service.get("volumes", ())]
    sources = {mount["source"] for mount in mounts if mount["type"] == "bind"}
    assert sources
    assert all(any(source.startswith(f"./{folder}") for folder in MOUNTED + SECRETS) for source in sources)


@pytest.mark.parametrize("part", ["launcher", "services/downloader", "services/miner", "services/verifier"])
def test_an_image_s_code_can_be_read_by_its_user_whatever_the_clone_s_umask_was(part: str) -> None:
    lines = (REPOSITORY / part / "Dockerfile").read_text().splitlines()
    copies = [number for number, line in enumerate(lines) if line.startswith("COPY ") and " /app/" in line]
    (opened,) = [number for number, line in enumerate(lines) if line.startswith("RUN chmod -R a+rX /app")]
    (user,) = [number for number, line in enumerate(lines) if line.startswith("USER ")]
    assert max(copies) < opened < user


def test_the_check_before_a_start_looks_at_it(clone: Path) -> None:
    (clone / "deploy/gateway").chmod(0o700)
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "R3MES_STORE_KIND": "container"}
    command = [str(REPOSITORY / ".venv/bin/python"), "-m", "launcher", "init", "check"]
    done = subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "next: in the project's folder: chmod -R a+rX deploy/gateway" in done.stderr
