"""The command lines of README and docs that can be run are run: each page's in order, as a person would type them.

What needs a stack is typed beside `r3mes demo`, which has the real services and a real model; its services' own ports
stand in for the gateway's.
"""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import requests

from shared.errors import ExitCode
from tests.support.command_lines import PAGES, ROOT, Kind, Line, kind_of, lines, of_kind
from tests.support.demo import Demo
from tests.support.documented import Place, type_command
from tests.support.programs import need
from tests.support.r3mes_words import problem, words_of_r3mes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def alone(page: Path) -> list[Line]:
    """Return the lines of a page that need no stack and nobody else's program."""
    return [line for line in lines(page) if {kind_of(command, line) for command in line.commands} == {Kind.ALONE}]


# README.tr.md has the same lines as README.md, which a test beside this one holds.
WITH_LINES_ALONE = [page for page in PAGES if page.name != "README.tr.md" and alone(page)]


def once(kind: Kind) -> list[str]:
    """Return the commands of a kind, each once; `.venv/bin/` is on the PATH here."""
    return sorted({command.removeprefix(".venv/bin/") for _, command in of_kind(kind)})


# A line whose command does not exist is named by a test beside this one.
STACK_COMMANDS = [each for each in once(Kind.STACK) if problem(words_of_r3mes(each) or []) is None]
# What a host of its own cannot have right for everybody: no network, no Docker, no GPU.
MAY_FAIL = {"doctor"}
INTERACTIVE = ("chat", "status --watch")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A project and a home, in which a genesis is accepted."""
    need("openssl")
    place = Place(tmp_path)
    code, screen = place.type("r3mes init")
    assert code == 0, screen
    return place


@pytest.mark.parametrize("page", WITH_LINES_ALONE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_lines_of_a_page_that_need_no_stack_end_well(page: Path, place: Place) -> None:
    for line in alone(page):
        code, screen = place.type(line.text, line.before)
        assert code == 0, f"{line}\n{screen}"
        assert "Traceback" not in screen, f"{line}\n{screen}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("command", once(Kind.SERVICE))
def test_a_service_starts_by_its_line_and_ends_when_it_is_told(command: str, place: Place, clean_redis: str) -> None:
    port = free_port()
    settings = {"R3MES_REDIS_URL": clean_redis, "R3MES_LISTEN": f"127.0.0.1:{port}", "R3MES_THREADS": "1"}
    environ = place.environ(**settings, HF_ENDPOINT="http://127.0.0.1:9")  # discard: nobody listens
    with (place.folder / "log").open("wb") as log:
        service = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=place.project, env=environ, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), 60, "the service to answer")
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0, (place.folder / "log").read_text()
    finally:
        service.kill()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The services with a verified model that answers."""
    with Demo(tmp_path_factory.mktemp("home"), "--max-tokens", "8", R3MES_THREADS="1") as demo:
        demo.wait_for("serving until Ctrl-C", 180)
        yield demo


def typed(command: str, demo: Demo) -> str:
    """Return a command as it is typed beside the demo: its ports instead of the gateway's, and short answers."""
    url = demo.url("downloader" if "/api/" in command else "miner")
    command = re.sub(r"http://[\w.-]+:8000", url, command).replace("curl ", "curl --fail --silent ")
    command = re.sub(r"--model \S+", "--model SmolLM2-135M-Instruct", command)
    return command.replace('"messages"', '"max_tokens": 8, "messages"').replace(
        "r3mes ask ", "r3mes ask --max-tokens 8 "
    )


@pytest.fixture
def environ(demo: Demo, tmp_path: Path) -> dict[str, str]:
    place = Place(tmp_path)
    return place.environ(HOME=str(demo.home))


@pytest.mark.parametrize("command", [each for each in STACK_COMMANDS if not each.endswith(INTERACTIVE)])
def test_a_line_that_needs_a_stack_does_what_it_says(
    command: str, demo: Demo, environ: dict[str, str], tmp_path: Path
) -> None:
    need("curl")
    code, screen = type_command(typed(command, demo), tmp_path / "project", environ)
    if command.split()[1] in MAY_FAIL:
        assert code in set(ExitCode) - {ExitCode.USAGE}, screen
    else:
        assert code == 0, screen
    assert screen.strip()
    assert "Traceback" not in screen


@pytest.mark.parametrize("command", [each for each in STACK_COMMANDS if each.endswith(INTERACTIVE)])
def test_a_line_that_goes_on_until_it_is_told_ends_by_ctrl_c_or_ctrl_d(
    command: str, demo: Demo, environ: dict[str, str], tmp_path: Path
) -> None:
    terminal = pexpect.spawn(
        "bash", ["-c", f"exec {typed(command, demo)}"], cwd=str(tmp_path / "project"), env={**environ, "TERM": "xterm"},
        encoding="utf-8", timeout=60, dimensions=(40, 120),
    )  # fmt: skip
    end = "\x04" if command.endswith("chat") else "\x03"
    try:
        terminal.expect(r"\w")
        if command.endswith("chat"):
            terminal.sendline("Hello.")
        # What is typed while an answer is written is heard when it is there.
        told = (terminal.send(end) and terminal.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=3) for _ in range(20))
        assert 0 in told, terminal.before
        assert terminal.wait() in {ExitCode.OK, ExitCode.INTERRUPTED}
    finally:
        terminal.close(force=True)


def test_this_project_s_home_is_not_touched(place: Place) -> None:
    code, screen = place.type("echo ~; type -p r3mes; r3mes genesis show")
    assert code == 0
    assert str(place.home) in screen
    assert str(place.project / ".venv/bin/r3mes") in screen
    assert os.environ["HOME"] != str(place.home)
