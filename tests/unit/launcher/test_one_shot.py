"""What `r3mes` makes of a command where the stack of the folder runs in containers."""

import os
from pathlib import Path

import pytest

from launcher.one_shot import hand_over, has_container_stack, one_shot
from shared.errors import UsageError

ASKED = '#!/bin/sh\n[ "$*" = "compose ps --all --services" ] && printf "init\\nverifier\\n"\n'
START = ["docker", "compose", "run", "--rm", "--no-deps"]


def test_files_are_mounted_where_they_are_and_called_by_where_that_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/one.gguf", "a/two words.gguf", "three.gguf"):
        (tmp_path / name).touch()
    files = [tmp_path / "a/one.gguf", tmp_path / "a/two words.gguf", tmp_path / "three.gguf"]
    assert one_shot(["import", "--json"], files, is_terminal=True) == [
        *START,
        *("-v", f"{tmp_path}/a:/host{tmp_path}/a:ro", "-v", f"{tmp_path}:/host{tmp_path}:ro"),
        *("init", "r3mes", "import", "--json", "--"),
        *(f"/host{file}" for file in files),
    ]


def test_a_link_is_followed_since_the_container_has_another_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model.gguf").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "real" / "model.gguf")
    command = one_shot(["verify"], [tmp_path / "link.gguf"], is_terminal=True)
    assert command[5:7] == ["-v", f"{tmp_path}/real:/host{tmp_path}/real:ro"]
    assert command[-1] == f"/host{tmp_path}/real/model.gguf"


def test_for_a_file_that_is_not_there_docker_makes_no_folder(tmp_path: Path) -> None:
    command = one_shot(["verify"], [tmp_path / "no" / "model.gguf"], is_terminal=True)
    assert "-v" not in command


def test_a_folder_with_a_colon_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "model.gguf").touch()
    with pytest.raises(UsageError, match="colon"):
        one_shot(["import"], [tmp_path / "a:b" / "model.gguf"], is_terminal=True)


def test_without_a_terminal_none_is_asked_for() -> None:
    assert one_shot(["gc"], [], is_terminal=False) == [*START, "-T", "init", "r3mes", "gc"]


def docker(folder: Path, script: str) -> None:
    """Write the program that this project's folder finds as `docker`."""
    program = folder / "bin" / "docker"
    program.write_text(script)
    program.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder whose stack has containers, as a `docker` says that is not one."""
    (tmp_path / "docker-compose.yml").touch()
    (tmp_path / "bin").mkdir()
    docker(tmp_path, ASKED)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("R3MES_MODELS_DIR", "R3MES_STORE_KIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stack_with_containers_is_known_by_its_services(project: Path) -> None:
    assert has_container_stack({}, project)
    docker(project, "#!/bin/sh\nprintf 'web\\ndb\\n'\n")
    assert not has_container_stack({}, project)


@pytest.mark.parametrize("environ", [{"R3MES_MODELS_DIR": "/srv/models"}, {"R3MES_STORE_KIND": "container"}])
def test_another_store_that_is_named_counts(project: Path, environ: dict[str, str]) -> None:
    assert not has_container_stack(environ, project)


def test_elsewhere_and_without_an_engine_the_host_s_store_counts(project: Path) -> None:
    assert not has_container_stack({}, project / "bin")
    docker(project, "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    assert not has_container_stack({}, project)


def test_a_setting_that_the_container_would_not_see_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3MES_GENESIS", "other.json")
    with pytest.raises(UsageError, match="R3MES_GENESIS is set in the environment"):
        hand_over(["genesis", "accept"], flags={"--yes": True})
    assert project.is_dir()
