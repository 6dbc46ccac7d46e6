"""What a person is told of a model on its way: once, and nothing that stood for a moment only."""

from __future__ import annotations

import time
from dataclasses import replace

from launcher.model_view import ModelView
from shared.states import FailureReason, ModelState, ModelStatus, Source

SIZE = 100
ABSENT = ModelStatus(
    "a" * 64, "Tiny", "tiny.gguf", ModelState.ABSENT, expected_bytes=SIZE, message="waits for its turn"
)
DOWNLOADING = replace(ABSENT, state=ModelState.DOWNLOADING, source=Source.HUGGINGFACE, message="")
VERIFYING = replace(DOWNLOADING, state=ModelState.VERIFYING, received_bytes=SIZE)
VERIFIED = replace(VERIFYING, state=ModelState.VERIFIED, hashed_bytes=SIZE)


class Recorder:
    """A display that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: dict[str, tuple[int, int | None]] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def error(self, line: str) -> None:
        raise AssertionError(line)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        self.bars[stage] = (done, total)

    def pause(self) -> None:
        self.bars.clear()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(*statuses: ModelStatus, step: float = 0.25) -> Recorder:
    """Show statuses in order, `step` seconds apart."""
    recorder, clock = Recorder(), Clock()
    view = ModelView(recorder, clock)
    for status in statuses:
        clock.now += step
        view.show(status)
    return recorder


def test_a_download_has_two_bars_and_its_source_is_named_once() -> None:
    half = replace(DOWNLOADING, received_bytes=50, hashed_bytes=20)
    seen = shown(ABSENT, DOWNLOADING, half, half)
    assert seen.lines == ["Tiny: from Hugging Face"]
    assert seen.bars == {"download": (50, SIZE), "verify": (20, SIZE)}
    seen = shown(ABSENT, half, VERIFYING, VERIFIED)
    assert seen.bars == {"download": (SIZE, SIZE), "verify": (SIZE, SIZE)}


def test_no_bar_goes_back_while_a_resume_finds_out_what_is_there() -> None:
    there = replace(ABSENT, received_bytes=40)
    seen = shown(there, DOWNLOADING)
    assert seen.lines[0] == "40 bytes of 100 bytes are here already; going on from there"
    assert seen.bars == {}


def test_a_model_that_was_verified_before_has_no_bars_and_no_words() -> None:
    seen = shown(VERIFIED)
    assert (seen.lines, seen.bars) == ([], {})


def test_the_fallback_is_told_with_the_reason() -> None:
    fallen = replace(DOWNLOADING, source=Source.IPFS, message="huggingface: HTTP 404")
    assert shown(ABSENT, DOWNLOADING, fallen, fallen).lines == [
        "Tiny: from Hugging Face",
        "huggingface: HTTP 404",
        "Tiny: from IPFS",
    ]


def test_bytes_that_were_deleted_are_told_and_the_next_try_has_bars_of_its_own() -> None:
    again = replace(DOWNLOADING, received_bytes=10)
    seen = shown(ABSENT, replace(DOWNLOADING, received_bytes=SIZE), VERIFYING, again)
    assert any("deleted" in line for line in seen.lines)
    assert seen.bars == {"download, try 2": (10, SIZE)}


def test_what_a_model_waits_for_is_told_once_it_stands() -> None:
    assert shown(ABSENT, ABSENT, DOWNLOADING).lines == ["Tiny: from Hugging Face"]
    assert shown(*[ABSENT] * 20).lines == ["Tiny: waits for its turn"]
    failed = replace(
        ABSENT,
        state=ModelState.FAILED,
        reason=FailureReason.DISK_FULL,
        message="5 bytes more must be free",
        next_attempt_at=time.time() + 20,
    )
    (line,) = shown(ABSENT, *[failed] * 20).lines
    assert line.startswith("Tiny: 5 bytes more must be free; tried again at ")


def test_a_verifier_that_never_tells_of_its_work_is_asked_after() -> None:
    assert not any("verifier" in line for line in shown(ABSENT, *[VERIFYING] * 50).lines)
    assert sum("does it run" in line for line in shown(ABSENT, *[VERIFYING] * 200).lines) == 1
    at_work = [replace(VERIFYING, hashed_bytes=n // 10) for n in range(200)]
    assert not any("does it run" in line for line in shown(ABSENT, *at_work).lines)
