"""`r3mes verify FILE`: the digest, the verdict against what is pinned here, the exit code; and not one change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from shared.store.records import AcceptedDocument
from tests.support.downloader_process import Downloader, model, sha256
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.geneses import list_form
from tests.support.genesis_host import snapshot
from tests.support.importing import R3MES, accept, host, run_r3mes, state_of

pytestmark = pytest.mark.slow

WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
OTHER = os.urandom(1000)


@pytest.fixture
def on(tmp_path: Path) -> Downloader:
    """A host that has accepted a genesis with one model."""
    host_ = host(tmp_path, DATA)
    accept(host_)
    return host_


def write(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_a_pinned_file_of_any_name_is_0_with_its_digest_on_stdout_and_changes_nothing(
    on: Downloader, tmp_path: Path
) -> None:
    file = write(tmp_path, "what I once fetched.bin", DATA)
    before, store = state_of(file), snapshot(on.layout.root)
    done = run_r3mes(on, "verify", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{DIGEST}  Tiny  {file}\n"
    genesis = sha256(on.genesis.read_bytes())
    assert f"compared with the accepted genesis, sha256 {genesis}\n" in done.stderr
    assert "the genesis calls this file tiny.gguf" in done.stderr
    assert "hash: 3.1 MB of 3.1 MB (100 %)\n" in done.stderr
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)
    assert state_of(file) == before
    assert snapshot(on.layout.root) == store


def test_a_file_with_a_pinned_name_and_another_digest_is_3_and_both_digests_are_said(
    on: Downloader, tmp_path: Path
) -> None:
    done = run_r3mes(on, "verify", write(tmp_path, "tiny.gguf", WRONG))
    assert done.returncode == 3
    assert done.stdout == f"{sha256(WRONG)}  not pinned  {tmp_path / 'tiny.gguf'}\n"
    assert f"its sha256  {sha256(WRONG)}" in done.stderr
    assert f"pinned      {DIGEST} under this name, for Tiny" in done.stderr
    assert "\n  next: " in done.stderr


def test_of_several_files_each_has_its_verdict_and_the_worst_is_the_exit_code(on: Downloader, tmp_path: Path) -> None:
    wrong, right = write(tmp_path, "tiny.gguf", WRONG), write(tmp_path, "right", DATA)
    missing = tmp_path / "missing.gguf"
    done = run_r3mes(on, "verify", "--json", wrong, missing, right)
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert report["genesis"] == {
        "origin": "accepted",
        "path": str(on.layout.genesis),
        "sha256": sha256(on.genesis.read_bytes()),
        "staged_sha256": None,
    }
    assert [(each["file"], each["result"], each["exit_code"]) for each in report["files"]] == [
        (str(wrong), "not_pinned", 3),
        (str(missing), "failed", 2),
        (str(right), "pinned", 0),
    ]
    assert [each.get("sha256") for each in report["files"]] == [sha256(WRONG), None, DIGEST]
    assert report["files"][0]["pinned"] == [DIGEST]
    assert report["files"][2]["model"] == "Tiny"
    assert report["files"][2]["size_bytes"] == len(DATA)


def test_what_is_no_file_is_2_with_a_next_step_and_nothing_waits_for_it(on: Downloader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    files = [tmp_path / "fifo", tmp_path, tmp_path / "missing.gguf", write(tmp_path, "\x1b[31mred", b"")]
    done = run_r3mes(on, "verify", *files)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n  next: ") == 4
    assert not {"\r", "\x1b"} & set(done.stderr)


def test_where_nothing_is_accepted_the_operator_s_file_is_asked_and_not_accepted_by_that(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    file = write(tmp_path, "tiny.gguf", DATA)
    done = run_r3mes(on, "verify", file)
    assert done.returncode == 0, done.stderr
    assert f"compared with {on.genesis}, which is not accepted on this host yet\n" in done.stderr
    assert not on.layout.root.exists()
    assert run_r3mes(on, "verify", write(tmp_path, "other", OTHER)).returncode == 3
    on.genesis.unlink()
    assert run_r3mes(on, "verify", file).returncode == 78


def test_the_accepted_and_the_staged_genesis_count_and_a_changed_operator_s_file_does_not(
    on: Downloader, tmp_path: Path
) -> None:
    other = write(tmp_path, "other", OTHER)
    on.genesis.write_bytes(list_form(model(OTHER, model_name="Other", file_name="other.gguf")))
    assert run_r3mes(on, "verify", other).returncode == 3
    assert run_r3mes(on, "verify", write(tmp_path, "tiny.gguf", DATA)).returncode == 0
    on.layout.next_genesis.write_bytes(on.genesis.read_bytes())
    done = run_r3mes(on, "verify", other)
    assert (done.returncode, done.stdout) == (0, f"{sha256(OTHER)}  Other  {other}\n")
    assert f"and the staged {sha256(on.genesis.read_bytes())}" in done.stderr


def test_a_store_whose_acceptance_was_cut_off_approves_nothing(on: Downloader, tmp_path: Path) -> None:
    accepted = AcceptedDocument.read(on.layout.accepted)
    assert accepted is not None
    accepted.model_copy(update={"sha256": "0" * 64}).write(on.layout.accepted)
    done = run_r3mes(on, "verify", write(tmp_path, "tiny.gguf", DATA))
    assert done.returncode == 78
    assert done.stdout == ""
    assert "r3mes genesis accept" in done.stderr


def test_on_a_terminal_there_is_a_bar_on_stderr_and_stdout_has_the_digest_alone(on: Downloader, tmp_path: Path) -> None:
    file, stdout = write(tmp_path, "tiny.gguf", DATA), tmp_path / "stdout"
    command = f'"$0" -m launcher verify "{file}" >"{stdout}"'
    terminal = pexpect.spawn(
        "/bin/sh",
        ["-c", command, sys.executable],
        env={**on.environ, "TERM": "xterm-256color"},
        cwd=str(on.home),
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=60,
    )
    try:
        terminal.expect("hash.*100 %.*3.1 MB")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
        assert stdout.read_text() == f"{DIGEST}  Tiny  {file}\n"
    finally:
        terminal.close(force=True)


def test_ctrl_c_ends_it_with_130(on: Downloader, tmp_path: Path) -> None:
    file = tmp_path / "endless"
    with file.open("wb") as content:
        content.truncate(4 * 10**12)  # sparse
    with subprocess.Popen(
        [*R3MES, "verify", file], cwd=on.home, env=on.environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "hash: " not in (line := process.stderr.readline()):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert "stopped" in stderr
