"""When the flag goes up that ends a decode: exactly while nobody waits for it any more."""

from __future__ import annotations

import ctypes

import pytest

from services.miner.engine.abort import AbortSwitch
from services.miner.engine.flight import NoRecorder, Work


def raised(switch: AbortSwitch) -> bool:
    """What llama.cpp sees."""
    return bool(ctypes.CDLL(None).strlen(switch.flag))


@pytest.fixture
def switch() -> AbortSwitch:
    return AbortSwitch(NoRecorder())


def test_the_flag_goes_up_with_the_last_cancel_and_down_with_the_next_work(switch: AbortSwitch) -> None:
    switch.working(Work.DECODING, ["a", "b"])
    switch.cancelled("a")
    assert not raised(switch)
    switch.cancelled("b")
    assert raised(switch)
    switch.working(Work.IDLE)
    assert not raised(switch)


def test_a_cancel_of_somebody_else_ends_nothing(switch: AbortSwitch) -> None:
    switch.working(Work.DECODING, ["a"])
    switch.cancelled("b")
    assert not raised(switch)


def test_a_cancel_that_comes_just_before_the_decode_counts(switch: AbortSwitch) -> None:
    switch.cancelled("a")
    switch.working(Work.DECODING, ["a"])
    assert raised(switch)
    switch.working(Work.DECODING, ["a", "b"])
    assert not raised(switch)
    switch.cancelled("b")
    assert raised(switch)


def test_a_handled_cancel_is_forgotten(switch: AbortSwitch) -> None:
    switch.cancelled("a")
    switch.handled("a")
    switch.working(Work.DECODING, ["a"])
    assert not raised(switch)


def test_outside_a_decode_the_flag_stays_down(switch: AbortSwitch) -> None:
    switch.working(Work.SAMPLING, ["a"])
    switch.cancelled("a")
    assert not raised(switch)
