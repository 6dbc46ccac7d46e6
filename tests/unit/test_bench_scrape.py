"""What decides in `make bench-scrape`: in which order windows are measured, and what is held against what."""

from __future__ import annotations

import pytest

from benchmarks.scrape import Pair, Scraped, compare, judge, parsed


def scraped(service: str, seconds: float, *, cpu: float = 0.002, size: int = 6_000) -> Scraped:
    return Scraped(service, "works", (seconds / 2,) * 98 + (seconds,) * 2, cpu, size)


def test_each_pair_begins_with_the_other_kind_of_window() -> None:
    asked: list[bool] = []

    def rate(is_scraped: bool) -> float:
        asked.append(is_scraped)
        return 9.0 if is_scraped else 10.0

    assert compare(rate, 3) == [Pair(9.0, 10.0)] * 3
    assert asked == [False, True, True, False, False, True]


def test_the_worst_service_and_the_median_pair_decide() -> None:
    found = [scraped("miner", 0.2, cpu=0.007, size=16_000), scraped("downloader", 0.4), scraped("verifier", 0.1)]
    slow, cpu, size, tokens = judge(found, [Pair(9.0, 10.0), Pair(10.0, 10.0), Pair(11.0, 10.0)])
    assert (slow.value, slow.note.partition(";")[0]) == (0.4, "downloader")
    assert (cpu.value, cpu.note.partition(";")[0]) == (pytest.approx(7.0), "miner")
    assert size.value == 16.0
    assert tokens.value == 1.0
    assert all(one.met for one in (slow, cpu, size, tokens))


@pytest.mark.parametrize("ratio", [0.9, 0.97])
def test_scrapes_that_cost_more_than_two_tokens_of_a_hundred_miss_the_target(ratio: float) -> None:
    (*_, tokens) = judge([scraped("miner", 0.1)], [Pair(ratio, 1.0)])
    assert not tokens.met


def test_the_row_of_a_service_has_median_and_p99() -> None:
    assert scraped("miner", 0.2).row() == ("miner", "works", "100", "100.0 ms", "200.0 ms", "2.00 ms", "6.0 kB")


def test_a_mere_look_is_told_from_a_whole_run() -> None:
    assert parsed([]).rounds == 10
    assert parsed(["--beside", "a CI run"]).beside == "a CI run"
