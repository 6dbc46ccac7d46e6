"""The status as a screen, drawn at several widths: compared line by line."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from launcher.miner_status import MinerReport
from launcher.status import Host, Report
from launcher.status_screen import Fitting, StatusScreen
from shared.states import ModelStatus
from tests.support.scripted_stack import DIGEST, miner, model, status_document

NOW = 1_700_000_200.0
MODELS = TypeAdapter(tuple[ModelStatus, ...])


def report(*models: dict[str, Any], miners: tuple[dict[str, Any], ...] = (), **changes: object) -> Report:
    document = status_document(**changes)
    return Report(
        "http://127.0.0.1:8000/api/v1/status",
        MODELS.validate_python(models),
        Host.model_validate(document),
        document,
        miners=tuple(MinerReport.model_validate(each) for each in miners),
    )


def drawn(found: Report, width: int = 80, *, encoding: str = "utf-8", **options: Any) -> list[str]:  # noqa: ANN401
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, **options)
    console.print(StatusScreen(found, NOW))
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


DOWNLOADING = model(
    state="downloading",
    received_bytes=2_200_000_000,
    expected_bytes=4_920_000_000,
    hashed_bytes=2_100_000_000,
    bytes_per_second=98_100_000.0,
    eta_seconds=27.7,
)


def test_a_verified_model_and_its_miner_fit_in_half_a_terminal() -> None:
    assert drawn(report(model(), miners=(miner(),))) == [
        "node local · genesis 3f2a9c41d0ab · from http://127.0.0.1:8000",
        "",
        "● Tiny  verified 3 minutes ago",
        "  98.8 MB from Hugging Face",
        f"  sha256 {DIGEST}",
        "",
        "● miner http://10.0.0.7:8080  ready, 2 running",
        "  Tiny by llama.cpp on the processor, 8 threads, 8192 tokens of context",
        "  why: no GPU; 8 threads: the cores",
        "",
        "queue  0 waiting, 0 at work",
        "redis  answers",
        "disk   35.1 GB free of 100.0 GB",
    ]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, "  ━━━━━━━━━━━━━                    44 %  2.2 GB of 4.9 GB  98.1 MB/s  28 s left"),
        (60, "  ━━━━╸         44 %  2.2 GB of 4.9 GB  98.1 MB/s  28 s left"),
        (50, "   44 %  2.2 GB of 4.9 GB  98.1 MB/s  28 s left"),
    ],
)
def test_a_download_has_a_bar_where_there_is_room(width: int, line: str) -> None:
    lines = drawn(report(DOWNLOADING), width)
    assert line in lines
    assert "  from Hugging Face, 2.1 GB hashed" in lines
    assert all(len(each) <= width for each in lines)


def test_a_narrow_terminal_shortens_the_digest() -> None:
    assert f"  sha256 {DIGEST[:12]}...{DIGEST[-12:]}" in drawn(report(model()), 60)


def test_names_of_several_lengths_leave_their_states_in_one_column() -> None:
    lines = drawn(report(model(), model(model_name="Small-135M", sha256="a" * 64)))
    assert {line.index("verified") for line in lines if "verified" in line} == {14}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "absent", "received_bytes": 0, "expected_bytes": None}, ["○ Tiny  not here yet"]),
        (
            {"state": "verifying", "hashed_bytes": 49_400_000},
            ["◐ Tiny  verifying", "  ━━━━━━━━━━━━━━━                  50 %  49.4 MB of 98.8 MB  hashed"],
        ),
        ({"state": "paused", "received_bytes": 9_880_000}, ["○ Tiny  paused", "  goes on with: r3mes resume Tiny"]),
        (
            {"state": "failed", "reason": "source_unavailable", "message": "503", "next_attempt_at": NOW + 250},
            ["✗ Tiny  failed: source unavailable", "  503", "  is tried again in 4 minutes"],
        ),
        (
            {"state": "failed", "reason": "hash_mismatch", "message": "two sources agree"},
            ["✗ Tiny  failed: hash mismatch", "  is not tried again by itself: r3mes retry Tiny"],
        ),
        ({"state": "failed", "reason": "disk_full", "next_attempt_at": NOW - 1}, ["  is tried again now"]),
        ({"state": "vetoed", "message": "a quorum lacks it"}, ["✗ Tiny  vetoed", "  a quorum lacks it"]),
    ],
)
def test_each_state_says_what_is_next(changes: dict[str, Any], expected: list[str]) -> None:
    lines = drawn(report(model(**changes)))
    assert [line for line in lines if line in expected] == expected


def test_miners_that_compute_alike_are_described_once() -> None:
    waiting = miner(url="http://c", ready=False, reason="Tiny is not verified yet", models=[], running=0)
    lines = drawn(report(miners=(miner(url="http://a"), miner(url="http://b", waiting=3), waiting)))
    assert lines[2:9] == [
        "● miner http://a  ready, 2 running",
        "  Tiny by llama.cpp on the processor, 8 threads, 8192 tokens of context",
        "  why: no GPU; 8 threads: the cores",
        "● miner http://b  ready, 2 running, 3 waiting",
        "  the same as the one above",
        "○ miner http://c  not ready",
        "  Tiny is not verified yet",
    ]


def test_a_stack_without_a_miner_says_so_and_redis_away_is_seen() -> None:
    lines = drawn(report(redis_up=False, queue=None))
    assert "○ miner  none answers" in lines
    assert "redis  is away: verdicts have to wait" in lines
    assert not [line for line in lines if line.startswith("queue")]


def test_a_terminal_of_few_letters_gets_marks_that_it_has() -> None:
    lines = drawn(report(model()), encoding="ascii")
    assert "* Tiny  verified 3 minutes ago" in lines


def test_names_from_outside_steer_nothing() -> None:
    lines = drawn(report(model(model_name="[red]a\x1b[2Jb", message="[link=x]y\r\nz"), miners=(miner(url="\x07"),)))
    assert r"● [red]a\x1b[2Jb  verified 3 minutes ago" in lines
    assert "  [link=x]y\\r z" in lines


def test_colours_have_one_meaning() -> None:
    terminal = {"force_terminal": True, "color_system": "standard", "legacy_windows": False}
    text = "\n".join(drawn(report(model(), DOWNLOADING, model(state="failed")), **terminal))
    green, cyan, red = "\x1b[32m", "\x1b[36m", "\x1b[31m"
    assert f"{green}verified 3 minutes ago" in text
    assert f"{cyan}downloading" in text
    assert f"{red}failed" in text
    few = {"free_bytes": 1_000_000_000, "total_bytes": 100_000_000_000}
    assert f"{red}1.0 GB free" in "\n".join(drawn(report(disk=few), **terminal))


@pytest.mark.parametrize(
    ("height", "second", "last"),
    [
        (13, "", "disk   35.1 GB free of 100.0 GB"),
        (7, "● Tiny  verified 3 minutes ago", "disk   35.1 GB free of 100.0 GB"),
        (5, "● Tiny  verified 3 minutes ago", "(3 more lines: a higher terminal shows them)"),
    ],
)
def test_a_low_terminal_is_told_in_brief_and_what_does_not_fit_is_counted(height: int, second: str, last: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(Fitting(StatusScreen(report(model(), miners=(miner(),)), NOW), height))
    lines = capture.get().splitlines()
    assert len(lines) == height
    assert (lines[1], lines[-1]) == (second, last)


def test_in_brief_what_is_wrong_still_says_why() -> None:
    failed = model(state="failed", reason="disk_full", message="3.1 GB are missing", sha256="a" * 64)
    waiting = miner(ready=False, reason="Tiny is not verified yet", models=[])
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(StatusScreen(report(failed, DOWNLOADING, miners=(waiting,)), NOW, brief=True))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert [lines[2], lines[-5]] == ["  3.1 GB are missing", "  Tiny is not verified yet"]
    assert "44 %" in lines[4]
