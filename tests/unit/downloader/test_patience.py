"""Silence, slowness, and failures of many connections at once, by a clock that the test moves."""

from __future__ import annotations

import threading

import pytest

from services.downloader.interrupt import Reason
from services.downloader.limits import Limits
from services.downloader.sources.session import StallMeter
from services.downloader.transfer.patience import Patience
from services.downloader.transfer.places import Places
from services.downloader.transfer.source_clock import RateWindow, SourceClock
from services.downloader.transfer.stop_rules import GiveUp, Wait

LIMITS = Limits()


class Time:
    """A clock for tests."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def patience(time: Time, failures: list[int] | None = None) -> Patience:
    told = failures if failures is not None else []
    return Patience(LIMITS, SourceClock(time), 0, 0, told.append)


def test_the_sources_clock_stands_still_while_the_delay_is_ours() -> None:
    time = Time()
    clock = SourceClock(time)
    began = clock.now()
    time.seconds += 5
    with clock.ours():
        time.seconds += 100
        with clock.ours():
            time.seconds += 100
        assert clock.now() == began + 5
        time.seconds += 100
    time.seconds += 2
    assert clock.now() == began + 7


def test_ninety_seconds_of_our_own_disk_are_not_the_sources_silence() -> None:
    time = Time()
    trial = patience(time)
    with trial.clock.ours():
        time.seconds += 1000
        assert trial.reason_to_stop() is None
    assert trial.reason_to_stop() is None
    time.seconds += 90
    assert trial.reason_to_stop() is Reason.QUIET


def test_eight_connections_that_fail_together_fail_once() -> None:
    time, told = Time(), []
    trial = patience(time, told)
    began = trial.clock.now()
    time.seconds += 1
    verdicts = [trial.failed(began, None) for _ in range(8)]
    assert isinstance(verdicts[0], Wait)
    assert verdicts[1:] == [None] * 7
    assert told == [1]


def test_five_failures_one_after_the_other_are_the_end() -> None:
    time = Time()
    trial = patience(time)
    verdicts = []
    for _ in range(5):
        began = trial.clock.now()
        time.seconds += 1
        verdicts.append(trial.failed(began, None))
    assert isinstance(verdicts[-1], GiveUp)
    assert all(isinstance(verdict, Wait) for verdict in verdicts[:-1])


def test_a_new_byte_of_any_connection_forgives() -> None:
    time, told = Time(), []
    trial = patience(time, told)
    trial.failed(trial.clock.now(), None)
    trial.came(10, 10)
    assert (trial.failures, told) == (0, [1, 0])


@pytest.mark.parametrize(
    ("bytes_per_second", "reason"), [(1, Reason.SLOW), (4000, Reason.SLOW), (4200, None), (10**6, None)]
)
def test_a_source_that_would_take_days_has_failed(bytes_per_second: int, reason: Reason | None) -> None:
    time = Time()
    trial = patience(time)
    seen = []
    for second in range(1, 200):
        time.seconds += 1
        trial.came(bytes_per_second, second * bytes_per_second)
        seen.append(trial.reason_to_stop())
    assert seen[80] is None  # not before a full window
    assert seen[-1] is reason


def test_a_source_that_was_fast_once_is_judged_by_the_last_window() -> None:
    window = RateWindow(10.0, 100.0)
    assert not window.is_too_slow(0.0, 0)
    assert not window.is_too_slow(10.0, 10**9)
    assert [window.is_too_slow(10.0 + second, 10**9 + second) for second in (1, 5, 11)] == [False, False, True]


def test_a_body_has_stalled_when_a_window_of_waiting_brought_too_little() -> None:
    meter = StallMeter(30.0, 64 * 1024)
    assert not any(meter.is_stalled(1.0, 1000) for _ in range(29))
    assert meter.is_stalled(1.0, 1000)
    assert not any(meter.is_stalled(1.0, 3000) for _ in range(300))


def test_time_that_is_not_spent_waiting_is_no_stall() -> None:
    meter = StallMeter(30.0, 64 * 1024)
    assert not any(meter.is_stalled(0.0, 1) for _ in range(10_000))


def test_connections_are_dealt_out_over_the_best_places() -> None:
    places = Places([0, 1, 2], spread=True)
    assert [places.pick(lane) for lane in range(4)] == [0, 1, 2, 0]
    places.missed(0)
    assert [places.pick(lane) for lane in range(4)] == [1, 2, 1, 2]
    places.worked(0)
    assert places.drop(1)
    assert [places.pick(lane) for lane in range(4)] == [0, 2, 0, 2]


def test_without_spreading_the_best_place_has_all_connections() -> None:
    places = Places([2, 0, 1])
    assert {places.pick(lane) for lane in range(4)} == {2}
    places.missed(2)
    assert {places.pick(lane) for lane in range(4)} == {0}
    assert places.drop(0)
    assert places.drop(1)
    assert not places.drop(2)


def test_the_clock_may_be_stopped_by_several_threads() -> None:
    clock = SourceClock()
    inside = threading.Barrier(3)

    def stop() -> None:
        with clock.ours():
            inside.wait(10)
            inside.wait(10)

    threads = [threading.Thread(target=stop) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    assert clock.now() == clock.now()
    inside.wait(10)
    for thread in threads:
        thread.join()
