"""When an engine that dies for no request's sake is started again, and when not."""

from __future__ import annotations

from services.miner.engine.breaker import Breaker, BreakerLimits

LIMITS = BreakerLimits(
    crashes=3, window_seconds=600, first_seconds=60, most_seconds=900, steady_seconds=120, retry_seconds=1
)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.crashed(at)
    assert breaker.open
    return breaker


def test_the_first_two_deaths_wait_a_little_and_the_third_opens_it() -> None:
    breaker = Breaker(LIMITS)
    assert [breaker.crashed(now) for now in (0.0, 5.0)] == [1.0, 2.0]
    assert not breaker.open
    assert breaker.crashed(10.0) == 60.0
    assert breaker.open
    assert breaker.crashes == 3


def test_deaths_that_lie_further_apart_than_the_window_do_not_open_it() -> None:
    breaker = Breaker(LIMITS)
    for now in (0.0, 400.0, 800.0, 1200.0):
        breaker.loaded(now)
        breaker.crashed(now)
    assert not breaker.open


def test_each_death_after_a_back_off_doubles_it_up_to_the_most() -> None:
    breaker = opened()
    assert [breaker.crashed(float(now)) for now in range(6)] == [120, 240, 480, 900, 900, 900]


def test_a_death_soon_after_the_tried_load_opens_it_again_at_once() -> None:
    breaker = opened()
    breaker.loaded(60.0)
    assert breaker.crashed(179.0) == 120.0


def test_an_engine_that_worked_long_enough_closes_it() -> None:
    breaker = opened()
    breaker.loaded(60.0)
    assert breaker.crashed(180.0) == 1.0
    assert not breaker.open
    assert breaker.crashes == 1


def test_work_long_ago_does_not_close_what_deaths_while_loading_opened() -> None:
    breaker = opened()
    breaker.loaded(60.0)
    breaker.crashed(70.0)
    assert breaker.crashed(500.0) == 240.0


def test_many_openings_are_no_overflow() -> None:
    breaker = opened()
    for _ in range(5000):
        assert breaker.crashed(0.0) <= 900


def test_something_else_to_try_closes_it() -> None:
    breaker = opened()
    breaker.reset()
    assert not breaker.open
    assert breaker.crashed(0.0) == 1.0
