"""The scheduler's promises: decode first, prompts take turns, the oldest goes on, nobody starves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.scheduler import HEADROOM, LOOK_AHEAD, MAX_BYPASSES, Limits, Plan, Scheduler
from services.miner.engine.sequence import Sequence
from tests.unit.miner.cache_checks import check_cache

LIMITS = Limits(sequences=3, cells=1000, batch_tokens=32, prefill_tokens=16, quantum=8)


def sequence(name: str, prompt: int, answer: int = 10) -> Sequence:
    """A prompt that begins like no other."""
    return Sequence(name, [1000 + sum(name.encode()) * 1000 + place for place in range(prompt)], prompt + answer)


def shares(plan: Plan) -> dict[str, int]:
    return {part.sequence.request_id: part.count for part in plan.slices}


def turn(scheduler: Scheduler) -> dict[str, int]:
    """One step: every sampled sequence gets a token and ends at its limit."""
    plan = scheduler.schedule()
    scheduler.executed(plan)
    for part in plan.slices:
        if part.samples:
            part.sequence.tokens.append(1)
            if part.sequence.exhausted:
                scheduler.remove(part.sequence)
    return shares(plan)


def test_a_running_answer_gets_its_token_however_long_a_prompt_is_that_comes() -> None:
    scheduler = Scheduler(LIMITS)
    scheduler.add(sequence("first", 4))
    assert turn(scheduler) == {"first": 4}
    scheduler.add(sequence("long", 500))
    for _ in range(5):
        assert turn(scheduler) == {"first": 1, "long": 15}


def test_the_more_prompts_wait_beside_one_answer_the_larger_the_step() -> None:
    scheduler = Scheduler(Limits(sequences=6, cells=1000, batch_tokens=40, prefill_tokens=16, quantum=8))
    scheduler.add(sequence("first", 4))
    turn(scheduler)
    scheduler.add(sequence("second", 100))
    scheduler.add(sequence("third", 100))
    assert sum(turn(scheduler).values()) == 2 * 16
    for name in ("fourth", "fifth"):
        scheduler.add(sequence(name, 100))
    assert sum(turn(scheduler).values()) == 40, "never more than a batch"


def test_however_many_answers_run_a_prompt_gets_half_of_its_share() -> None:
    scheduler = Scheduler(Limits(sequences=21, cells=1000, batch_tokens=40, prefill_tokens=16, quantum=8))
    for number in range(20):
        scheduler.add(sequence(str(number), 1))
    turn(scheduler)
    scheduler.add(sequence("long", 100))
    assert turn(scheduler)["long"] == 8


def test_apart_answers_and_prompts_have_every_other_step_each() -> None:
    scheduler = Scheduler(replace(LIMITS, apart=True))
    scheduler.add(sequence("first", 4))
    turn(scheduler)
    scheduler.add(sequence("long", 40))
    assert [turn(scheduler) for _ in range(5)] == [{"first": 1}, {"long": 16}, {"first": 1}, {"long": 16}, {"first": 1}]
    assert [turn(scheduler) for _ in range(3)] == [{"long": 8}, {"first": 1, "long": 1}, {"first": 1, "long": 1}]


def test_a_prompt_goes_on_where_the_share_is_one_token() -> None:
    scheduler = Scheduler(Limits(sequences=2, cells=1000, batch_tokens=2, prefill_tokens=1))
    scheduler.add(sequence("first", 1))
    turn(scheduler)
    scheduler.add(sequence("long", 5))
    assert turn(scheduler) == {"first": 1, "long": 1}


def test_a_prompt_alone_gets_the_whole_batch() -> None:
    scheduler = Scheduler(LIMITS)
    scheduler.add(sequence("alone", 100))
    assert [turn(scheduler)["alone"] for _ in range(4)] == [32, 32, 32, 4]


def test_prompts_take_turns_so_that_a_long_one_does_not_stall_a_short_one() -> None:
    scheduler = Scheduler(LIMITS)
    scheduler.add(sequence("long", 400))
    scheduler.add(sequence("short", 8))
    assert turn(scheduler) == {"long": 24, "short": 8}


def test_the_turn_goes_on_after_the_prompt_that_was_served_last() -> None:
    scheduler = Scheduler(Limits(sequences=3, cells=1000, batch_tokens=8, prefill_tokens=8, quantum=8))
    for name in "abc":
        scheduler.add(sequence(name, 40))
    assert [next(iter(turn(scheduler))) for _ in range(6)] == list("abcabc")


def test_the_newest_makes_room_and_goes_on_later() -> None:
    scheduler = Scheduler(Limits(sequences=2, cells=100, batch_tokens=100, prefill_tokens=100))
    old, new = sequence("old", 30, 60), sequence("new", 30, 60)
    scheduler.add(old)
    scheduler.add(new)
    while scheduler.preemptions == 0:
        turn(scheduler)
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new]
    assert (new.computed, new.slot) == (0, None)
    assert new.generated > 0
    while not scheduler.idle:
        assert scheduler.cells_used <= 100 + len(scheduler.running)
        turn(scheduler)
    assert len(old.tokens) == len(new.tokens) == 90


def test_a_small_request_may_pass_a_big_one_but_not_for_ever() -> None:
    scheduler = Scheduler(Limits(sequences=2, cells=200, batch_tokens=64, prefill_tokens=64))
    scheduler.add(sequence("holder", 100, 90))
    turn(scheduler)
    scheduler.add(sequence("big", 150, 10))
    passed = 0
    while "big" in {waiting.request_id for waiting in scheduler.waiting}:
        if len(scheduler.waiting) == 1:
            scheduler.add(sequence(f"small-{passed}", 2, 1))
            passed += 1
        turn(scheduler)
    assert 1 < passed <= MAX_BYPASSES + 1


def test_only_the_first_few_that_wait_are_looked_at() -> None:
    scheduler = Scheduler(Limits(sequences=2, cells=200, batch_tokens=64, prefill_tokens=64))
    scheduler.add(sequence("holder", 100, 90))
    turn(scheduler)
    for number in range(LOOK_AHEAD):
        scheduler.add(sequence(f"big-{number}", 150))
    scheduler.add(sequence("small", 2, 1))
    assert "small" not in turn(scheduler)


def test_an_admitted_sequence_has_room_for_what_it_generates_soon() -> None:
    scheduler = Scheduler(Limits(sequences=2, cells=100, batch_tokens=100, prefill_tokens=100))
    scheduler.add(sequence("first", 100 - 2 * HEADROOM, 2))
    turn(scheduler)
    scheduler.add(sequence("second", 2 * HEADROOM - 10, 40))
    assert "second" not in turn(scheduler)


@pytest.mark.parametrize(("prompt", "answer"), [(0, 5), (1000, 1)])
def test_what_can_never_run_is_refused(prompt: int, answer: int) -> None:
    with pytest.raises(ValueError, match="1000 cells"):
        Scheduler(LIMITS).add(sequence("x", prompt, answer))


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted"):
        Limits(sequences=33, cells=1000, batch_tokens=32)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60)), min_size=1, max_size=20), st.booleans())
def test_everything_ends_within_the_batch_and_the_cache(sizes: list[tuple[int, int]], apart: bool) -> None:
    scheduler = Scheduler(replace(LIMITS, apart=apart))
    for number, (prompt, answer) in enumerate(sizes):
        scheduler.add(sequence(str(number), prompt, answer))
    for _ in range(20_000):
        check_cache(scheduler)
        if scheduler.idle:
            return
        plan = scheduler.schedule()
        assert 0 < sum(part.count for part in plan.slices) <= LIMITS.batch_tokens
        assert scheduler.cells_used <= LIMITS.cells
        assert len(scheduler.running) <= LIMITS.sequences
        scheduler.executed(plan)
        for part in plan.slices:
            if part.samples:
                part.sequence.tokens.append(1)
                if part.sequence.exhausted:
                    scheduler.remove(part.sequence)
    raise AssertionError("something starves")
