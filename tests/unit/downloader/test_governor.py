"""How many connections are used, against links that are simulated: no network, no clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.downloader.transfer.governor import Governor

TICK = 0.25
MB = 10**6


def drive(governor: Governor, seconds: float, rate: Callable[[int], float], begin: float = 0.0) -> list[int]:
    """Let time pass on a link of `rate(connections)` bytes/s; return how many connections ran at each tick."""
    received, allowed = 1.0, []
    for tick in range(int(seconds / TICK)):
        allowed.append(governor.look(begin + tick * TICK, int(received)))
        received += rate(allowed[-1]) * TICK
    return allowed


def test_all_connections_run_from_the_start() -> None:
    assert drive(Governor(8, 0.0), 9.0, lambda n: n * 50 * MB) == [8] * 36


def test_a_server_that_is_slow_for_each_connection_keeps_all_of_them() -> None:
    allowed = drive(Governor(8, 0.0), 600.0, lambda n: n * 10 * MB)
    assert allowed[-1] == 8
    assert sum(allowed) / len(allowed) > 7.8  # the trials cost little


@pytest.mark.parametrize("full_with", [1, 2, 3])
def test_a_link_that_few_connections_fill_is_left_to_few(full_with: int) -> None:
    allowed = drive(Governor(8, 0.0), 900.0, lambda n: min(n, full_with) * 50 * MB)
    assert full_with <= allowed[-1] <= full_with + 1


def test_connections_come_back_when_the_link_gets_wider() -> None:
    governor = Governor(8, 0.0)
    drive(governor, 600.0, lambda n: min(n, 2) * 50 * MB)
    few = governor.allowed
    assert few <= 3
    assert drive(governor, 2400.0, lambda n: n * 50 * MB, begin=600.0)[-1] > few


def test_a_refusal_halves_the_connections_and_several_of_one_moment_count_once() -> None:
    governor = Governor(8, 0.0)
    for _ in range(5):
        governor.refused(1.0)
    assert governor.allowed == 4
    governor.refused(3.0)
    assert governor.allowed == 2


def test_one_connection_always_stays() -> None:
    governor = Governor(2, 0.0)
    for second in range(10):
        governor.refused(float(second * 2))
    assert governor.allowed == 1


def test_after_a_refusal_they_come_back_one_by_one() -> None:
    governor = Governor(8, 0.0)
    governor.refused(0.0)
    allowed = drive(governor, 100.0, lambda n: n * MB)
    assert allowed[0] == 4
    assert allowed[-1] == 7


def test_a_pause_without_bytes_is_no_measure() -> None:
    governor = Governor(8, 0.0)
    assert set(drive(governor, 300.0, lambda _: 0.0)) == {8}
