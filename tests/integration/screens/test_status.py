"""`r3mes status`: at a terminal and in a pipe, once and watched, from a stack and from the store."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from queue import Queue
from typing import IO

import pytest

from shared.acceptance import load_init_settings, start_store
from shared.store.layout import StoreLayout
from shared.store.records import Control
from tests.support.geneses import DIGEST as STORED
from tests.support.geneses import plain_form
from tests.support.launching import Started, launch
from tests.support.scripted_stack import DIGEST, ScriptedStack, miner, model
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreLayout:
    """A store whose genesis, with one tiny model, was accepted."""
    genesis = tmp_path / "genesis.json"
    genesis.write_bytes(plain_form())
    monkeypatch.setenv("R3MES_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("R3MES_GENESIS", str(genesis))
    settings, values = load_init_settings(os.environ, project=tmp_path)
    layout = start_store(settings, values).layout
    nobody = dict.fromkeys(("miner", "downloader", "verifier"), "http://127.0.0.1:9")
    demo = layout.root.parent / "demo"
    demo.mkdir()
    (demo / "endpoints.json").write_text(json.dumps(nobody))
    return layout


class Lines:
    """The lines that a process writes, read as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self._queue: Queue[str] = Queue()
        threading.Thread(target=lambda: [self._queue.put(line) for line in stream], daemon=True).start()

    def next(self) -> str:
        line = self._queue.get(timeout=60)
        assert "\x1b" not in line
        return line.rstrip("\n")

    def until(self, words: str) -> str:
        while words not in (line := self.next()):
            pass
        return line


def test_a_terminal_shows_one_screen(stack: ScriptedStack) -> None:
    with Terminal("status", R3MES_URL=f"{stack.url}/v1") as terminal:
        assert terminal.end() == 0
        lines = terminal.lines()
        assert lines[0] == f"node local · genesis 3f2a9c41d0ab · from {stack.url}"
        assert lines[2].startswith("● Tiny  verified ")
        assert lines[6] == "● miner http://10.0.0.7:8080  ready, 2 running"
        assert lines[-1] == "disk   35.1 GB free of 100.0 GB"
        assert "\x1b[32m" in terminal.written


def test_no_colour_and_a_dumb_terminal_are_heeded(stack: ScriptedStack) -> None:
    with Terminal("status", R3MES_URL=stack.url, NO_COLOR="1") as terminal:
        assert terminal.end() == 0
        assert "\x1b[3" not in terminal.written
        assert terminal.lines()[2].startswith("● Tiny")
    with Terminal("status", R3MES_URL=stack.url, TERM="dumb", columns=200) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.written
        assert "Tiny: verified, 98.8 MB, from huggingface, verified 2023-11-14T22:13:20Z" in terminal.text


def test_a_pipe_gets_plain_lines_and_quiet_is_data_alone(stack: ScriptedStack) -> None:
    done = launch("status", "-q", R3MES_URL=stack.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"Tiny: verified, 98.8 MB, from huggingface, verified 2023-11-14T22:13:20Z, sha256 {DIGEST}",
        "miner at http://10.0.0.7:8080: ready, 2 running, 0 waiting",
        "  Tiny by llama.cpp on the processor, 8 threads, 8192 tokens of context",
        "  why: no GPU; 8 threads: the cores",
        "queue: 0 waiting, 0 at work",
        "redis: answers",
        "disk: 35.1 GB free of 100.0 GB",
    ]


def test_json_is_the_document_with_its_miners(stack: ScriptedStack) -> None:
    done = launch("status", "--json", R3MES_URL=stack.url)
    assert json.loads(done.stdout) == stack.status
    assert done.stderr == ""


def test_the_store_is_read_where_no_stack_answers(layout: StoreLayout) -> None:
    done = launch("status")
    assert done.returncode == 0
    assert done.stderr == f"no stack answers; from the store {layout.root}\n"
    first, disk = done.stdout.splitlines()
    assert first == f"Tiny: absent, sha256 {STORED}"
    assert disk.startswith("disk: ")
    document = json.loads(launch("status", "--json").stdout)
    assert set(document["disk"]) == {"free_bytes", "total_bytes"}
    assert document["miners"] == []


def test_a_watched_screen_changes_with_the_stack_and_gives_the_terminal_back(stack: ScriptedStack) -> None:
    with Terminal("status", "--watch", R3MES_URL=stack.url, lines=24) as terminal:
        terminal.wait_for("● Tiny  verified")
        stack.tell(models=[model(state="downloading", received_bytes=24_700_000, hashed_bytes=0)])
        terminal.wait_for("◐ Tiny  downloading\n  ━━━━━━━╸━━")
        terminal.wait_for(" 25 %  24.7 MB of 98.8 MB")
        stack.tell(miners=[miner(ready=False, reason="Tiny is not verified yet")])
        terminal.wait_for("○ miner http://10.0.0.7:8080  not ready")
        terminal.resize(60, 24)
        terminal.wait_for(f"  sha256 {DIGEST[:12]}...{DIGEST[-12:]}")
        stack.stop()
        terminal.wait_for(f"no answer from {stack.url}")
        terminal.wait_for("◐ Tiny  downloading")  # what was there before
        stack.start()
        stack.tell(models=[model()])
        terminal.wait_for("● Tiny  verified")
        assert "no answer" not in terminal.text
        terminal.interrupt()
        assert terminal.end() == 0
        assert not terminal.screen.cursor.hidden
        assert terminal.written.count("\x1b[?1049h") == terminal.written.count("\x1b[?1049l") == 1
        left = terminal.written.rpartition("\x1b[?1049l")[2]
        assert "35.1 GB free" in left  # the last state stays on the screen


def test_watching_a_store_sees_a_change_and_a_stack_that_comes_up(layout: StoreLayout, stack: ScriptedStack) -> None:
    with Terminal("status", "--watch") as terminal:
        terminal.wait_for("○ Tiny  not here yet")
        terminal.wait_for("no stack answers; read from")
        layout.incoming_dir(STORED).mkdir()
        Control(wish="paused").write(layout.control(STORED))
        terminal.wait_for("○ Tiny  paused")
        everywhere = dict.fromkeys(("miner", "downloader", "verifier"), stack.url)
        (layout.root.parent / "demo" / "endpoints.json").write_text(json.dumps(everywhere))
        terminal.wait_for(f"from {stack.url}")
        terminal.interrupt()
        assert terminal.end() == 0


def test_watching_in_a_pipe_writes_a_line_for_each_change(stack: ScriptedStack) -> None:
    with Started("status", "--watch", "-q", R3MES_URL=stack.url) as running:
        lines = Lines(running.stdout)
        assert "Z Tiny: verified" in lines.next()
        lines.until("redis: answers")
        for received in (10_000_000, 10_000_001, 60_000_000):  # the second is no news
            stack.tell(models=[model(state="downloading", received_bytes=received)])
            wait_until(lambda: stack.looks_since_change >= 2, 30, "the change to be looked at")
        assert "10.0 MB of" in lines.next()
        assert "60.0 MB of" in lines.next()
        stack.stop()
        assert "error: no answer from" in lines.next()
        stack.start()
        assert "answers again" in lines.next()
        running.interrupt()
        assert running.command.wait(30) == 0


def test_watching_as_json_writes_a_document_a_line(stack: ScriptedStack) -> None:
    with Started("status", "--watch", "--json", R3MES_URL=stack.url) as running:
        lines = Lines(running.stdout)
        assert json.loads(lines.next()) == stack.status
        stack.tell(disk={"free_bytes": 1, "total_bytes": 2})  # changes all the time
        wait_until(lambda: stack.looks_since_change >= 2, 30, "the change to be looked at")
        stack.tell(queue={"queued": 1, "started": 0})
        assert json.loads(lines.next())["queue"] == {"queued": 1, "started": 0}
        stack.stop()
        assert "nothing listens there" in json.loads(lines.next())["error"]["message"]
        running.interrupt()
        assert running.command.wait(30) == 0


@pytest.mark.parametrize("arguments", [["status"], ["status", "--watch"]])
def test_an_address_where_nobody_answers_is_exit_code_6(arguments: list[str]) -> None:
    done = launch(*arguments, R3MES_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (6, "")
    assert "next: check R3MES_URL" in done.stderr
