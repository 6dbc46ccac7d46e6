"""`r3mes doctor` as a person and as a script runs it: a fresh machine, a pipe, a terminal, secrets, exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pexpect
import pyte
import pytest
from pytest_httpserver import HTTPServer

from launcher.doctor.checks import CHECKS
from launcher.ports import is_free
from tests.support.doctor_host import TOKEN, DoctorHost, checks_of, is_root, play_hugging_face, put_verified
from tests.support.genesis_host import snapshot
from tests.support.r3mes_shell import R3MES

pytestmark = pytest.mark.slow

ROWS, COLUMNS = 48, 120
SECRETS = {
    "HF_TOKEN": TOKEN,
    "R3MES_API_KEYS": "api-key-of-the-test,second-key-of-the-test",
    "R3MES_REDIS_URL": "redis://redis-user-x:redis-pass%2Fword@127.0.0.1:1/0",
    "HTTPS_PROXY": "http://proxy-user-x:proxy-pass-x@127.0.0.1:2",
    "all_proxy": "http://all-user-x:all-pass-x@127.0.0.1:2",
    "R3MES_CHAIN_RPC": "https://rpc-user-x:rpc-pass-x@rpc.example",
    "MY_SERVICE_TOKEN": "another-token-of-mine",
}
BARE = (
    TOKEN,
    "api-key-of-the-test",
    "second-key-of-the-test",
    "redis-pass%2Fword",
    "redis-pass/word",
    "proxy-pass-x",
    "all-pass-x",
    "rpc-pass-x",
    "another-token-of-mine",
)


@pytest.fixture
def host(tmp_path: Path) -> DoctorHost:
    return DoctorHost(tmp_path)


def test_a_fresh_machine_without_anything_is_told_what_it_lacks_and_not_changed(tmp_path: Path) -> None:
    host = DoctorHost(tmp_path, genesis=False)
    done = host.run("doctor", "--offline")
    assert done.returncode == 78, done.stderr
    assert "FAILED    genesis: " in done.stdout
    assert "no such file" in done.stdout
    if is_free(6379):
        assert "warning   redis: nothing answers" in done.stdout
    assert "skipped   docker, compose, nvidia-toolkit: no Docker here" in done.stdout
    assert done.stdout.count("next: ") >= 2
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)
    assert list(host.home.iterdir()) == []
    assert sorted(path.name for path in host.project.iterdir()) == []


def test_every_check_is_in_the_document_once_at_least_and_warnings_are_no_failure(host: DoctorHost) -> None:
    done = host.run("doctor", "--json", "--offline", "-q")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert list(dict.fromkeys(each["check"] for each in document["checks"])) == [check.name for check in CHECKS]
    failures = [each for each in document["checks"] if each["status"] == "failed"]
    assert failures == []
    assert (done.returncode, document["exit_code"]) == (0, 0)
    assert all(each["next_step"] for each in document["checks"] if each["status"] == "warning")
    assert document["platform"]["python"]
    assert document["store"]["root"] == "~/.r3mes/models"


def test_no_secret_of_the_environment_or_its_files_is_anywhere_in_what_is_said(host: DoctorHost) -> None:
    (host.project / "docker-compose.yml").touch()
    (host.project / ".env").write_text("R3MES_NODE=x y\nMY_PASSWORD='one of the env file'\n")
    said = ""
    for arguments in (("doctor", "--json"), ("doctor", "--verbose")):
        done = host.run(*arguments, **SECRETS)
        assert done.returncode == 78
        said += done.stdout + done.stderr
    for secret in (*BARE, "one of the env file", str(host.home)):
        assert secret not in said
    assert "***" in said


def test_a_host_that_lacks_nothing_is_0_and_asks_the_source(host: DoctorHost, httpserver: HTTPServer) -> None:
    host.accept()
    put_verified(host.layout)
    before = snapshot(host.layout.root)
    done = host.run("doctor", "--json", "--deep", HF_ENDPOINT=play_hugging_face(httpserver))
    checks = checks_of(done)
    assert done.returncode == 0, {name: each for name, each in checks.items() if each["status"] == "failed"}
    fine = ("settings", "source", "token", "clock", "store", "rights", "genesis", "models")
    assert {name: checks[name]["status"] for name in fine} == dict.fromkeys(fine, "ok")
    assert checks["models"]["summary"].endswith("digest read and right")
    assert snapshot(host.layout.root) == before


@pytest.mark.parametrize(
    ("wrong", "code"),
    [("nothing", 4), ("tampered", 3), ("name", 78), ("redis", 6)],
)
def test_the_exit_code_says_what_kind_of_failure_it_is(
    host: DoctorHost, httpserver: HTTPServer, wrong: str, code: int
) -> None:
    environ = {"HF_ENDPOINT": play_hugging_face(httpserver)}
    arguments = ["doctor"]
    match wrong:
        case "nothing":
            environ["HF_ENDPOINT"] = "http://127.0.0.1:1"
        case "tampered":
            host.accept()
            path = put_verified(host.layout)
            path.chmod(0o644)
            path.write_bytes(b"X" + path.read_bytes()[1:])
            arguments.append("--deep")
        case "name":
            environ["R3MES_MODLE"] = "x"
        case _:
            environ["R3MES_REDIS_URL"] = "redis://127.0.0.1:1/0"
    done = host.run(*arguments, **environ)
    assert done.returncode == code, done.stdout
    assert f"exit code {code}\n" in done.stdout


@pytest.mark.skipif(not is_root(), reason="needs root, as init in a container has")
def test_in_a_container_what_it_cannot_see_is_skipped_with_the_reason(host: DoctorHost) -> None:
    container = {"R3MES_STORE_KIND": "container", "R3MES_MODELS_DIR": str(host.home / "volume")}
    host.accept(**container)
    done = host.run("doctor", "--json", "--offline", **container)
    checks = checks_of(done)
    assert {checks[name]["status"] for name in ("docker", "compose", "nvidia-toolkit", "ports", "redis")} == {"skipped"}
    assert {checks[name]["status"] for name in ("store", "rights", "genesis")} == {"ok"}
    assert "on the host" in checks["ports"]["summary"]
    (host.home / "volume" / "incoming").chmod(0o777)
    wrong = checks_of(host.run("doctor", "--json", "--offline", **container))["rights"]
    assert (wrong["status"], wrong["exit_code"], wrong["about"]) == ("failed", 78, "incoming")


def spawn(host: DoctorHost, *arguments: str, **environ: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable,
        ["-m", "launcher", *arguments],
        env={**host.environ, "TERM": "xterm-256color", **environ},
        cwd=str(host.project),
        encoding="utf-8",
        dimensions=(ROWS, COLUMNS),
        timeout=100,
    )


def test_on_a_terminal_it_is_one_screen_in_colour(host: DoctorHost) -> None:
    terminal = spawn(host, "doctor", "--offline")
    try:
        terminal.expect(pexpect.EOF)
        terminal.close()
        said = terminal.before or ""
    finally:
        terminal.close(force=True)
    assert "\x1b[" in said
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.Stream(screen).feed(said)
    shown = [line.rstrip() for line in screen.display]
    assert shown[0].startswith("looking at this host")
    assert "settings" in shown
    assert any(line.startswith("  ok        ") for line in shown)
    assert any(" ok, " in line and " skipped" in line for line in shown)  # the last line: all of it was on the screen


def test_without_colour_wanted_there_is_none(host: DoctorHost) -> None:
    terminal = spawn(host, "doctor", "--offline", NO_COLOR="1", TERM="dumb")
    try:
        terminal.expect(pexpect.EOF)
        said = terminal.before or ""
    finally:
        terminal.close(force=True)
    assert "\x1b" not in said
    assert "store\r\n" in said


def test_ctrl_c_ends_it_at_once_with_130_whatever_hangs(host: DoctorHost) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [*R3MES, "doctor"],
            cwd=host.project,
            env={**host.environ, "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        silent.settimeout(60)
        connection, _ = silent.accept()  # it waits for the source now
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
