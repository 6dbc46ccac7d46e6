"""What a person at a terminal sees of `r3mes pull`: two bars, wide or narrow, with colours or without."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.downloader_process import MIB
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.importing import R3MES
from tests.support.origin_server import Hold, ScriptedOrigin, ranged
from tests.support.pull_terminal import Terminal
from tests.support.pulling import alone
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Open = Callable[..., Terminal]


@pytest.fixture
def hold(origin: ScriptedOrigin) -> Hold:
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    return hold


@pytest.fixture
def open_pull(home: Path, origin: ScriptedOrigin, hold: Hold) -> Open:  # noqa: ARG001 - the origin holds before
    def open_pull(columns: int, **environ: str) -> Terminal:
        on = alone(home, origin, R3MES_DOWNLOAD_CONNECTIONS="1")
        return Terminal([*R3MES, "pull"], columns, on.home, {**on.environ, **environ})

    return open_pull


def test_two_bars_stand_below_each_other_while_the_bytes_come_and_are_verified(open_pull: Open, hold: Hold) -> None:
    with open_pull(100) as screen:
        wait_until(lambda: "67 %" in screen.line("verify"), 60, "a bar that moves")
        wait_until(lambda: "0 bytes/s" in screen.line("download"), 60, "a stall that is seen")
        assert re.fullmatch(r"download       ━+╸?━* +67 % 2\.1/3\.1 MB 0 bytes/s", screen.line("download"))
        assert re.match(r"verify         ━+[╸╺]?━* +67 % 2\.1/3\.1 MB", screen.line("verify"))
        assert not screen.has_cursor
        hold.release()
        assert screen.wait() == 0
        assert screen.lines()[-5:-2] == [
            "Tiny: from Hugging Face",
            f"download       {'━' * 40} 100 % 3.1/3.1 MB",
            f"verify         {'━' * 40} 100 % 3.1/3.1 MB",
        ]
        assert "".join(screen.lines()[-2:]) == (
            f"Tiny: verified, 3.1 MB from huggingface, ~/models/verified/{DIGEST}/tiny.gguf"
        )
        assert screen.has_cursor
        assert screen.colours


def test_ctrl_c_gives_the_terminal_back_and_says_that_nothing_is_lost(open_pull: Open) -> None:
    with open_pull(80) as screen:
        wait_until(lambda: "67 %" in screen.line("download"), 60, "a bar that moves")
        screen.press("c")
        assert screen.wait() == 130
        assert screen.lines()[-1] == "stopped: what came is kept, and the same command goes on from it"
        assert screen.has_cursor
        assert b"Traceback" not in screen.raw


def test_a_narrow_terminal_has_each_bar_on_one_line_and_no_colours_are_forced_on_anyone(
    open_pull: Open, hold: Hold
) -> None:
    with open_pull(44, NO_COLOR="1") as screen:
        wait_until(lambda: "67 %" in screen.line("verify"), 60, "a line that moves")
        assert re.fullmatch(r"download +67 % 2\.1/3\.1 MB", screen.line("download"))
        hold.release()
        assert screen.wait() == 0
        assert screen.colours == []


def test_a_dumb_terminal_gets_lines_alone(open_pull: Open, hold: Hold) -> None:
    with open_pull(80, TERM="dumb") as screen:
        wait_until(lambda: any("(67 %)" in line or "(66 %)" in line for line in screen.lines()), 60, "a line")
        hold.release()
        assert screen.wait() == 0
        assert b"\x1b" not in screen.raw
        assert b"\r" not in screen.raw.replace(b"\r\n", b"\n")  # the terminal's own line ends
        assert screen.line("download: 3.1 MB of 3.1 MB (100 %)")
