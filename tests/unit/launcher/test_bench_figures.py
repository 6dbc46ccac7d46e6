"""What figures mean, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.bench.figures import Figure, Measured, Missing, duration, meanings, number
from launcher.bench.inference import bounded
from launcher.bench.report import document, lines, plain
from launcher.doctor.blanking import Blanker
from launcher.doctor.subject import examine

NOBODY = Blanker([], "")
MEASURED: Measured = [
    Figure("link rate", "MB/s", (40.0, 49.0, 60.0), "ranges; warm-up: one look"),
    Figure("disk write", "MB/s", (900.0, 1000.0), "256 MiB; warm-up: 32 MiB"),
    Figure("disk read", "MB/s", (490.0,), "past the page cache; no warm-up"),
    Figure("hash", "GB/s", (1.7,), "in memory; warm-up: one round"),
    Missing("inference", "no miner runs", "r3mes demo"),
]


def test_the_meaning_is_that_of_the_slowest_part() -> None:
    assert meanings(MEASURED) == [
        "a 4.9 GB model downloads in about 100 s over one connection",
        "it is verified in at least 10 s, which reading sets",
    ]
    fast_disk = [Figure("disk write", "MB/s", (5000.0,), ""), Figure("hash", "GB/s", (1.7,), "")]
    assert meanings(fast_disk) == ["it is verified in at least 2.9 s, which the processor sets"]
    assert meanings([Figure("prefill", "tokens/s", (100.0,), ""), Figure("decode", "tokens/s", (27.0,), "")]) == [
        "a prompt of 1,000 tokens is read in about 10 s",
        "an answer of 200 words comes in about 10 s, to one client alone",
    ]
    assert meanings([]) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.02, "20 ms"), (2.94, "2.9 s"), (59.6, "60 s"), (119, "119 s"), (300, "5 min"), (10_000, "2.8 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")])
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_each_figure_has_its_spread_and_each_gap_its_reason() -> None:
    assert plain(MEASURED).splitlines()[:2] == [
        "            median   min    max  unit  rounds",
        "link rate     49.0  40.0   60.0  MB/s       3",
    ]
    said = lines(MEASURED, NOBODY)
    assert "disk read: past the page cache; no warm-up" in said
    assert "inference: not measured: no miner runs; next: r3mes demo" in said


def test_the_document_has_the_keys_that_scripts_read(tmp_path: Path) -> None:
    content = json.loads(json.dumps(document(MEASURED, examine({}, tmp_path, offline=True), NOBODY)))
    assert list(content) == ["version", "r3mes", "platform", "store", "offline", "figures", "missing", "meaning"]
    assert content["figures"][0] == {
        "name": "link rate",
        "unit": "MB/s",
        "rounds": 3,
        "min": 40.0,
        "median": 49.0,
        "max": 60.0,
        "values": [40.0, 49.0, 60.0],
        "how": "ranges; warm-up: one look",
    }
    assert content["missing"] == [{"name": "inference", "why": "no miner runs", "next_step": "r3mes demo"}]


def test_a_round_stays_within_its_bounds() -> None:
    assert [bounded(wanted, (16, 128)) for wanted in (1.0, 16.5, 100.0, 1e9)] == [16, 16, 100, 128]
