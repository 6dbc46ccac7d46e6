"""When silence is an engine that is stuck."""

from __future__ import annotations

import pytest

from services.miner.engine.watchdog import Watchdog, WatchdogLimits

LIMITS = WatchdogLimits(least_seconds=60, slowest_flops=10e9, longest_steps=20, look_seconds=1)


def small() -> Watchdog:
    return Watchdog(parameters=1000, batch_tokens=512, limits=LIMITS)


def looks(watchdog: Watchdog, start: int, end: int, *, waited_for: bool = True) -> list[int]:
    """The seconds at which it says "stuck", of one look each second."""
    return [now for now in range(start, end) if watchdog.look(float(now), waited_for=waited_for)]


def test_a_minute_of_silence_while_somebody_waits_is_stuck() -> None:
    assert looks(small(), 0, 63) == [61, 62]


def test_nobody_waits_for_an_idle_engine() -> None:
    watchdog = small()
    assert looks(watchdog, 0, 500, waited_for=False) == []
    assert looks(watchdog, 500, 562)[:1] == [560]


def test_each_step_begins_anew() -> None:
    watchdog = small()
    looks(watchdog, 0, 59)
    watchdog.stepped()
    assert looks(watchdog, 59, 110) == []


def test_a_long_step_makes_it_patient() -> None:
    watchdog = small()
    looks(watchdog, 0, 11)
    watchdog.stepped()
    assert watchdog.bound == pytest.approx(20 * 10)


@pytest.mark.parametrize(("parameters", "bound"), [(135e6, 60), (8e9, 819.2), (70e9, 7168)])
def test_the_first_batch_of_a_large_model_on_a_slow_processor_has_its_time(parameters: float, bound: float) -> None:
    assert Watchdog(int(parameters), 512, LIMITS).bound == pytest.approx(bound)


def test_a_pause_of_the_whole_container_is_not_the_engines_silence() -> None:
    watchdog = small()
    looks(watchdog, 0, 10)
    assert not watchdog.look(10_000.0, waited_for=True)
    assert not watchdog.look(10_001.0, waited_for=True)
