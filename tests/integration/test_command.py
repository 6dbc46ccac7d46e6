"""The command `r3mes` in odd surroundings: streams that are closed, full or of few letters, an early Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demo import PROJECT
from tests.support.geneses import plain_form
from tests.support.waiting import wait_until


@pytest.fixture
def check(tmp_path: Path) -> str:
    """A shell's command line that prints JSON."""
    genesis = tmp_path / "genesis.json"
    genesis.write_bytes(plain_form())
    return f"{sys.executable} -m launcher genesis check {genesis} --json"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_full_stdout_is_an_error_with_a_next_step(check: str) -> None:
    done = shell(f"{check} >/dev/full")
    assert done.returncode == 1
    assert "cannot write to stdout: No space left on device" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_changes_nothing_else(check: str, closed: str) -> None:
    done = shell(f"{check} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Tiny" in done.stdout) is (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize(("command", "status", "said"), [("ask", 2, "error: there is no question"), ("chat", 0, "")])
def test_a_closed_stdin_is_one_that_says_nothing(command: str, status: int, said: str) -> None:
    done = shell(f"{sys.executable} -m launcher {command} --url http://127.0.0.1:1 <&-")
    assert done.returncode == status
    assert done.stderr.split("\n")[0] == said


@pytest.mark.parametrize("command", ["verify x", "fleet", "init", "genesis show"])
def test_a_folder_that_was_removed_is_a_usage_error(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    line = f"cd {folder}; rmdir {folder}; exec {sys.executable} -m launcher {command}"
    done = shell(line, PYTHONPATH=str(PROJECT), R3MES_URL="")
    assert done.returncode == 2
    assert "the folder that this was called in cannot be had" in done.stderr


def test_what_nobody_foresaw_is_one_line_and_a_traceback_for_who_asks() -> None:
    program = "import launcher.cli as cli; cli.app.command('fall')(lambda: 1 / 0); cli.main()"
    fall = f'{sys.executable} -c "{program}" fall'
    done = shell(fall)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: ZeroDivisionError: division by zero"
    assert "R3MES_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in shell(fall, R3MES_DEBUG="1").stderr


def test_a_reader_that_leaves_early_gets_no_traceback(check: str) -> None:
    done = shell(f"{check} | true")
    assert done.returncode in {0, 1}
    assert done.stderr == ""


def test_a_letter_that_a_stream_cannot_write_costs_no_more_than_itself() -> None:
    program = "from launcher.streams import mend_streams, write_data; mend_streams(); write_data('K\\u00e4se\\n')"
    done = shell(f'{sys.executable} -c "{program}"', PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "K?se\n", "")


def test_an_interrupt_while_the_command_is_read_in_ends_it_quietly(tmp_path: Path) -> None:
    marker = tmp_path / "reading"
    (tmp_path / "typer.py").write_text(
        "import pathlib, signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job begins without it
        f"pathlib.Path({str(marker)!r}).touch()\n"
        "while True:\n    threading.Event().wait(0.05)\n"  # a pause() would sleep through a signal just before it
    )
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", "status"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
    ) as process:
        try:
            wait_until(marker.exists, what="the command to be read in")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, said) == (130, b"")
