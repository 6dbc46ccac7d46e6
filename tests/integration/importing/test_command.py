"""`r3mes import` on a host where nothing else runs: right files, wrong ones, and what is no file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.states import Source
from shared.store.verified import has_right_receipt
from tests.support.downloader_process import MIB, model, sha256
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.geneses import list_form
from tests.support.genesis_host import snapshot
from tests.support.import_child import import_in_child
from tests.support.importing import accept, host, incoming_names, is_verified, run_import, state_of

OTHER = os.urandom(MIB + 5)
OTHER_DIGEST = sha256(OTHER)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])


def other_model() -> dict[str, object]:
    return model(OTHER, model_name="Other", file_name="other.gguf")


def test_a_right_file_of_any_name_is_verified_and_a_second_import_writes_nothing(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    file = tmp_path / "what I once fetched.bin"
    file.write_bytes(DATA)
    before = state_of(file)

    done = run_import(on, file)

    assert done.returncode == 0, done.stderr
    path = on.layout.verified_file(DIGEST, "tiny.gguf")
    assert done.stdout == f"Tiny: verified, ~/{path.relative_to(on.home)}\n"
    assert state_of(file) == before
    assert is_verified(on)
    receipt = has_right_receipt(on.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert receipt.source is Source.IMPORT
    assert (on.layout.root / "tiny.gguf").readlink() == Path("verified") / DIGEST / "tiny.gguf"
    assert incoming_names(on.layout, DIGEST) == []
    for stage in ("hash", "copy", "verify"):
        assert f"{stage}: 3.1 MB of 3.1 MB (100 %)\n" in done.stderr
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)

    store = snapshot(on.layout.root)
    assert import_in_child(on.environ, on.home, file) == 0
    assert "already verified, nothing was copied" in (on.home / "import.log").read_text()
    assert snapshot(on.layout.root) == store
    assert state_of(file) == before


def test_a_wrong_file_is_left_alone_and_named_and_keeps_no_other_from_being_verified(tmp_path: Path) -> None:
    on = host(tmp_path, DATA, other_model())
    wrong, right = tmp_path / "TINY.gguf", tmp_path / "right"
    wrong.write_bytes(WRONG)
    right.write_bytes(OTHER)
    before = state_of(wrong)

    done = run_import(on, "--json", wrong, right)

    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["store"] == str(on.layout.root)
    assert [(each["file"], each["result"], each["exit_code"]) for each in report["files"]] == [
        (str(wrong), "not_pinned", 3),
        (str(right), "verified", 0),
    ]
    assert report["files"][0]["sha256"] == sha256(WRONG)
    assert report["files"][0]["pinned"] == [DIGEST]
    assert report["files"][1]["path"] == str(on.layout.verified_file(OTHER_DIGEST, "other.gguf"))
    assert f"error: {wrong} is not a file that the genesis pins, and is left alone" in done.stderr
    assert sha256(WRONG) in done.stderr
    assert DIGEST in done.stderr
    assert state_of(wrong) == before
    assert is_verified(on, OTHER_DIGEST, "other.gguf")
    assert not on.layout.incoming_dir(DIGEST).exists()
    assert not on.layout.verified_dir(DIGEST).exists()


def test_what_is_no_file_is_named_with_a_next_step_and_nothing_waits_for_it(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    fifo, empty, colours = tmp_path / "fifo", tmp_path / "empty", tmp_path / "\x1b[31mred\r"
    os.mkfifo(fifo)
    empty.touch()
    colours.touch()
    files = [fifo, tmp_path, tmp_path / "missing.gguf", empty]

    done = run_import(on, *files, colours)

    assert done.returncode == 2
    assert done.stdout == ""
    for file in files:
        assert f" {file}" in done.stderr
    assert done.stderr.count("\n  next: ") == 5
    assert "\\x1b[31mred\\r" in done.stderr
    assert not {"\r", "\x1b"} & set(done.stderr)
    assert list(on.layout.incoming.iterdir()) == []


def test_a_changed_genesis_stops_an_import_as_it_stops_a_start(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    accept(on)
    file = tmp_path / "file"
    file.write_bytes(OTHER)
    on.genesis.write_bytes(list_form(other_model()))
    store = snapshot(on.layout.root)
    done = run_import(on, file)
    assert done.returncode == 78
    assert "r3mes genesis accept" in done.stderr
    assert snapshot(on.layout.root) == store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs with room for the margin, and for not one copy of the small file."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={257 * MIB}", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_says_how_much_is_missing_and_the_same_command_works_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    on = host(small_disk, DATA)
    file = tmp_path / "file"
    file.write_bytes(DATA)

    done = run_import(on, file)

    assert done.returncode == 5, done.stderr
    missing = int(done.stderr.partition("no room for Tiny: ")[2].split()[0])
    room = os.statvfs(on.layout.root)
    # A page or two come and go with the lease.
    assert missing == pytest.approx(256 * MIB + len(DATA) - room.f_bavail * room.f_frsize, abs=64 * 1024)
    assert "next: free some space" in done.stderr
    assert incoming_names(on.layout, DIGEST) == []

    subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", small_disk], check=True)
    assert import_in_child(on.environ, on.home, file) == 0
    assert is_verified(on)
