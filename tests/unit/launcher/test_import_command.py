"""The exit code of several files, what an adoption's outcome means for a person, and what reaches a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.display import PlainDisplay, printable
from launcher.hashing import hash_file
from launcher.importing import failure
from launcher.session import exit_code
from services.downloader.interrupt import Reason
from services.downloader.run_once import (
    Completed,
    Interrupted,
    LeaseTaken,
    LocalTrouble,
    Outcome,
    SourceFailed,
)
from shared.errors import ExitCode, UsageError
from shared.genesis import ModelPin
from shared.states import FailureReason
from shared.store.layout import StoreLayout
from shared.store.records import StatIdentity

PIN = ModelPin("Tiny", "tiny.gguf", "https://huggingface.co/o/r/resolve/main/tiny.gguf", "0" * 64, 1.0, "", None)


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [
        ([], ExitCode.OK),
        ([0, 0], ExitCode.OK),
        ([0, 5, 2], ExitCode.DISK_SPACE),
        ([2, 3, 0], ExitCode.INTEGRITY),
        ([3, 130], ExitCode.INTERRUPTED),
    ],
)
def test_several_files_have_one_exit_code(codes: list[int], wanted: ExitCode) -> None:
    assert exit_code(codes) is wanted


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (LeaseTaken(), ExitCode.NOT_READY),
        (Interrupted(Reason.LEASE_LOST), ExitCode.NOT_READY),
        (LocalTrouble("cannot write: Input/output error"), ExitCode.FAILURE),
        (SourceFailed("not the pinned file", FailureReason.HASH_MISMATCH), ExitCode.INTEGRITY),
        (SourceFailed("offers 2 bytes", FailureReason.UPSTREAM_MISMATCH), ExitCode.INTEGRITY),
        (SourceFailed("cannot read it"), ExitCode.SOURCE_UNAVAILABLE),
    ],
)
def test_an_adoption_that_failed_is_an_error_with_a_next_step(outcome: Outcome, code: ExitCode) -> None:
    error = failure(outcome, StoreLayout(Path("/nowhere")), PIN, 1)
    assert error is not None
    assert error.exit_code is code
    assert error.next_step


def test_an_adoption_that_completed_is_none() -> None:
    assert failure(Completed(1), StoreLayout(Path("/nowhere")), PIN, 1) is None


def test_a_name_cannot_write_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\x1b[2Jna\xffme\r\x07\xc2\x9b")
    assert printable(f"{name}\n\tü") == "\\x1b[2Jna\\udcffme\\r\\x07\\x9b\n\tü"
    PlainDisplay().say(name)
    assert capsys.readouterr().err == "\\x1b[2Jna\\udcffme\\r\\x07\\x9b\n"


def test_a_stage_is_shown_again_for_the_next_file(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    for _ in range(2):
        display.progress("hash", 8, 8)
        display.pause()
    assert capsys.readouterr().err.count("hash: 8 bytes of 8 bytes (100 %)\n") == 2


def test_hashing_tells_of_every_buffer_and_of_the_state_before_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"GGUF" + bytes(9 * 1024 * 1024))
    told: list[tuple[int, int]] = []
    hashed = hash_file(file, lambda done, size: told.append((done, size)))
    assert told[0] == (0, hashed.size_bytes)
    assert told[-1] == (hashed.size_bytes, hashed.size_bytes)
    assert len(told) == 4
    assert hashed.looks_like_gguf
    assert hashed.identity == StatIdentity.of(file.stat())


def test_a_file_that_is_written_to_while_it_is_hashed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"begun")
    with pytest.raises(UsageError, match="changed while it was read"):
        hash_file(file, lambda done, _size: None if done else file.write_bytes(b"begun and gone on with") and None)
