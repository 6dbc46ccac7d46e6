"""The whole chain with everything real: SmolLM2's file, Redis, RQ, HTTP, llama.cpp, kills.

Issue 12's promises, as a newcomer would try them: an answer from an empty home, a second start that downloads nothing,
a stack that comes back by itself from a flushed Redis and killed services, a lie of one bit that loads nothing, and no
process left behind.
"""

import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import psutil
import pytest
import redis

from tests.support.demo import PROJECT, Demo
from tests.support.waiting import wait_until

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SERVING = "serving until Ctrl-C"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def honest_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the first demo of this module has run: tests that start from it download nothing."""
    home = tmp_path_factory.mktemp("newcomer")
    with Demo(home, "--once", "--max-tokens", "24") as demo:
        assert demo.wait(180) == 0, demo.stderr
        (home / "first.stdout").write_text(demo.stdout)
        (home / "first.stderr").write_text(demo.stderr)
        assert demo.left_behind() == []
    return home


@pytest.fixture
def serving(honest_home: Path) -> Iterator[Demo]:
    """A demo that serves."""
    with Demo(honest_home, "--max-tokens", "8") as demo:
        demo.wait_for(SERVING, 120)
        yield demo


def test_from_an_empty_home_to_an_answer(honest_home: Path) -> None:
    stdout, stderr = ((honest_home / f"first.{name}").read_text() for name in ("stdout", "stderr"))
    assert "Paris" in stdout
    rows = dict(line.split(": ", 1) for line in stdout.splitlines() if ": " in line)
    assert rows["sha256"] == SHA256
    assert rows["size"].startswith(f"{SIZE:,}")
    assert rows["chat"].endswith("/v1/chat/completions")
    assert re.search(r"^[\d.]+ s for 98.4 MB \([\d.]+ MB/s\)$", rows["download"])
    for stage in ("download", "verify"):
        assert re.search(rf"^{stage}: .*\(100 %\)$", stderr, re.MULTILINE)


def test_off_a_terminal_nothing_moves(honest_home: Path) -> None:
    for name in ("stdout", "stderr"):
        text = (honest_home / f"first.{name}").read_text()
        assert "\r" not in text
        assert "\x1b" not in text


def test_what_is_loaded_lies_read_only_under_its_digest(honest_home: Path) -> None:
    models = honest_home / ".r3mes/models"
    file = models / "verified" / SHA256 / FILE
    assert (file.stat().st_size, stat.S_IMODE(file.stat().st_mode)) == (SIZE, 0o444)
    assert (models / FILE).readlink() == Path("verified") / SHA256 / FILE
    assert not (models / "incoming" / SHA256 / "data").exists()


def test_a_second_start_takes_seconds_downloads_nothing_and_says_so(honest_home: Path) -> None:
    with Demo(honest_home, "--once", "--max-tokens", "8") as demo:
        assert demo.wait(60) == 0, demo.stderr  # about 6 s where nothing else runs
        assert "nothing is downloaded" in demo.stderr
        assert demo.row["download"].startswith("nothing (0 bytes fetched)")


def test_the_stack_comes_back_from_a_flushed_redis_and_the_kill_of_each_service(serving: Demo) -> None:
    with redis.Redis.from_url((serving.directory / "redis/redis.url").read_text().strip()) as client:
        client.flushall()
    wait_until(serving.answers, 30, "an answer after FLUSHALL")
    for role in ("downloader", "verifier", "miner"):
        before = serving.service(role)
        assert before is not None
        engines = before.children(recursive=True)
        before.kill()
        wait_until(lambda role=role, old=before: _is_back(serving, role, old), 30, f"another {role}")
        wait_until(serving.answers, 60, f"an answer after the {role} was killed")
        assert not [engine for engine in engines if engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE]
    assert serving.process.poll() is None
    old = serving.redis()
    assert old is not None
    old.kill()
    wait_until(lambda: (new := serving.redis()) is not None and new.pid != old.pid, 15, "another Redis")
    wait_until(serving.answers, 30, "an answer after Redis was killed")


def test_a_terminal_s_ctrl_c_while_serving_is_a_normal_end(serving: Demo) -> None:
    serving.interrupt(signal.SIGINT)
    assert serving.wait(30) == 0
    assert serving.left_behind() == []
    assert not (serving.directory / "endpoints.json").exists()


def test_a_killed_demo_leaves_no_process(serving: Demo) -> None:
    serving.process.kill()
    serving.process.wait()
    wait_until(lambda: serving.left_behind() == [], 20, "everything is gone")


def test_an_interrupt_during_the_download_leaves_no_process_and_the_next_run_goes_on(tmp_path: Path) -> None:
    slow = str(16 * 1024 * 1024)  # the interrupt has to come before the last byte, on a busy machine too
    with Demo(tmp_path, R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND=slow) as demo:
        demo.wait_for(" MB of 98.4 MB (", 60)
        demo.interrupt(signal.SIGINT)
        assert demo.wait(30) == 130
        assert demo.left_behind() == []
    with Demo(tmp_path) as demo:
        demo.wait_for("loading the model", 60)
        fetched = re.search(r"^([\d.]+) MB fetched and verified", demo.stderr, re.MULTILINE)
        assert fetched is not None
        assert 0 < float(fetched[1]) < SIZE / 1e6 - 1
        demo.interrupt(signal.SIGTERM)
        assert demo.wait(30) == 130
        assert demo.left_behind() == []


def test_a_lie_of_one_bit_loads_nothing_and_exits_with_3(tmp_path: Path) -> None:
    with Demo(tmp_path, "--once", "--tamper") as demo:
        assert demo.wait(180) == 3, demo.stderr
        assert demo.left_behind() == []
        assert f"expected sha256 {SHA256}" in demo.stderr
        assert re.search(r"found +sha256 [0-9a-f]{64}", demo.stderr)
        assert demo.stdout == ""
        assert not demo.store.exists()
        verified = demo.tampered_store / "verified"
        assert [path.name for path in verified.rglob("*")] == [".partial"]
        records = list((demo.tampered_store / "rejected").glob(f"{SHA256}-*.json"))
        assert records
        assert not (demo.tampered_store / "incoming" / SHA256 / "data").exists()


def test_on_a_terminal_there_is_one_bar_each_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "launcher", "demo", "--max-tokens", "16"]
    terminal = pexpect.spawn(
        command[0], command[1:], env=environment, cwd=str(PROJECT), encoding="utf-8", dimensions=(40, 120), timeout=120
    )
    try:
        terminal.expect("download.*MB/s")
        terminal.expect("verify.*100 %")
        terminal.expect("Paris")
        terminal.expect(SERVING)
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)


def _is_back(demo: Demo, role: str, old: psutil.Process) -> bool:
    new = demo.service(role)
    return new is not None and new.pid != old.pid
