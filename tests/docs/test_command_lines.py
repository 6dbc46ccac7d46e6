"""Every command line of README and docs is accounted for: nothing stands there that nobody would notice to be wrong."""

import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from shared.acceptance.settings import read_env_file
from tests.support.command_lines import (
    BY_HAND,
    ELSEWHERE,
    PAGES,
    ROOT,
    TARGETS,
    Kind,
    Line,
    every_line,
    kind_of,
    lines,
    of_kind,
)
from tests.support.r3mes_words import problem, root_commands, words_of_r3mes

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# In prose, too: `r3mes pull` and `make up`.
SPAN = re.compile(r"`(?:\.venv/bin/)?(r3mes|make) ([a-z][^`]*)`")
IDS = {"ids": str}


def test_a_page_without_a_command_line_would_be_seen() -> None:
    pages = {line.page for line in every_line()}
    assert {"README.md", "README.tr.md", "docs/quickstart.md", "docs/operations.md", "docs/migration.md"} <= pages
    assert len(every_line()) > 100


def test_every_command_is_accounted_for() -> None:
    unknown = [str(line) for line in every_line() for command in line.commands if kind_of(command, line) is None]
    assert not unknown, "\n".join(
        ["", *unknown, "next: teach these to tests/support/command_lines.py, and the tests here"]
    )


def test_both_readmes_have_the_same_command_lines() -> None:
    english, turkish = (lines(ROOT / name) for name in ("README.md", "README.tr.md"))
    assert [line.text for line in english] == [line.text for line in turkish]
    assert "](README.tr.md)" in (ROOT / "README.md").read_text().split("\n\n")[1]
    assert "](README.md)" in (ROOT / "README.tr.md").read_text().split("\n\n")[1]


def test_both_readmes_point_at_the_same_and_name_the_same_settings() -> None:
    english, turkish = ((ROOT / name).read_text() for name in ("README.md", "README.tr.md"))
    links, names = r"\]\((docs/[^)]*|LICENSE|CHANGELOG\.md)\)", r"(?m)^\| (`\w+`(?:, `\w+`)*) \|"
    assert set(re.findall(links, english)) == set(re.findall(links, turkish))
    assert re.findall(names, english) == re.findall(names, turkish)
    assert len(re.findall(r"(?m)^#+ ", english)) == len(re.findall(r"(?m)^#+ ", turkish))


def test_what_runs_a_command_elsewhere_is_there_and_speaks_of_it() -> None:
    telling = {"tests/integration/test_chain.py": "--tamper", "tests/e2e/test_joined.py": "deploy/certificates"}
    for place in {*ELSEWHERE.values(), *TARGETS.values()}:
        assert (ROOT / place).is_file(), place
        assert telling.get(place, "") in (ROOT / place).read_text(), place


@pytest.mark.parametrize("pattern", [*ELSEWHERE, *BY_HAND])
def test_no_excuse_is_left_for_a_line_that_is_gone(pattern: str) -> None:
    commands = [command for line in every_line() for command in line.commands]
    assert [command for command in commands if re.fullmatch(pattern, command, re.DOTALL)]


# --- r3mes ------------------------------------------------------------------------------------------------------------


def test_every_line_of_r3mes_names_commands_and_options_that_exist() -> None:
    found = []
    for line in every_line():
        for command in line.commands:
            arguments = words_of_r3mes(command) if kind_of(command, line) is not Kind.SETTING else None
            if arguments is not None and (wrong := problem(arguments)):
                found.append(f"{line}: {wrong}")
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_target_in_prose_exists(page: Path) -> None:
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text())
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text()))
    found = []
    for program, rest in SPAN.findall(prose):
        name = rest.split()[0]
        if program == "make" and name not in targets:
            found.append(f"make {name}")
        if program == "r3mes" and name not in root_commands():
            found.append(f"r3mes {name}")
    assert found == []


# --- make and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "command"), of_kind(Kind.MAKE), **IDS)
def test_a_target_of_make_has_a_recipe_and_something_that_runs_it(line: Line, command: str) -> None:
    words = [word for word in shlex.split(command) if "=" not in word]
    assert words[0] == "make"
    assert set(words[1:]) <= set(TARGETS), f"{line}: name what runs it in TARGETS"
    dry = re.sub(r"\bmake\b", "make --dry-run", command, count=1)
    done = subprocess.run(["bash", "-c", dry], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(("line", "command"), of_kind(Kind.SETTING), **IDS)
def test_a_setting_is_one_that_env_may_hold(line: Line, command: str, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(f"{command}\n")
    name, _, value = command.partition("=")
    assert name == "COMPOSE_FILE" or read_env_file(env) == {name: value}, line
    if name == "COMPOSE_FILE":
        assert [file for file in value.split(":") if not (ROOT / file).is_file()] == []


# --- Compose ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_folder_that_a_container_of_this_user_writes_into_is_made_first(page: Path) -> None:
    before = ""
    for line in page.read_text().splitlines():
        if "--user" in line and (folder := re.search(r'-v "\$PWD/(\w+)":', line)):
            assert re.search(rf"(?m)^mkdir .*\b{folder[1]}\b", before), f"Docker makes {folder[1]} as root"
        before += line + "\n"


needs_compose = pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="needs Docker Compose, which knows its own options",
)


@cache
def options_of(subcommand: str) -> dict[str, bool]:
    """Return the options of a subcommand of Compose, and whether each takes a value."""
    told = subprocess.run(
        ["docker", "compose", subcommand, "--help"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    found = {}
    for short, long, value in re.findall(r"(?m)^ +(?:(-\w), )?(--[\w-]+)(?: (\w+))?(?: +|$)", told):
        found |= {long: bool(value)} | ({short: bool(value)} if short else {})
    return found


@needs_compose
@pytest.mark.parametrize(("line", "command"), of_kind(Kind.COMPOSE), **IDS)
def test_a_line_of_compose_has_options_and_services_that_exist(line: Line, command: str) -> None:
    subcommand, *words = shlex.split(command)[2:]
    known = options_of(subcommand)
    services = []
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            assert name in known, f"{line}: `docker compose {subcommand}` knows no {name}"
            if known[name] and not equals:
                words.pop(0)
        else:
            services.append(word)
            if subcommand in {"run", "exec"}:
                break  # what follows is the container's
    assert set(services) <= set(SERVICES), line


@needs_compose
@pytest.mark.parametrize("override", sorted(ROOT.glob("compose.*.yml")), ids=lambda path: path.name)
def test_compose_can_read_each_override_that_the_docs_name(override: Path) -> None:
    files = ["-f", "docker-compose.yml", "-f", override.name]
    done = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", *files, "config", "--quiet"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "R3MES_IMPORT_DIR": "/srv/models", "R3MES_NODE": "gpu2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
