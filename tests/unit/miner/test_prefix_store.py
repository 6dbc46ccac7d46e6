"""What is kept lies in memory after a while, where it costs no step anything, and comes back when it is asked for."""

from __future__ import annotations

from dataclasses import replace

from services.miner.engine.cache_moves import SwapIn, SwapOut
from services.miner.engine.scheduler import Limits
from tests.unit.miner.test_engine import Stand, expected
from tests.unit.miner.test_prefix_sharing import SYSTEM, computed

LIMITS = Limits(
    sequences=4, cells=2000, batch_tokens=64, prefill_tokens=32, quantum=16, slots=16, horizon=50, stored=5000
)


def run(stand: Stand, name: str, prompt: list[int], most: int = 1) -> int:
    """Run a request to its end; return how many tokens were computed for it."""
    before = computed(stand)
    stand.submit(name, prompt, most)
    stand.run()
    assert stand.text(name) == expected(prompt, most)
    return computed(stand) - before


def pass_time(stand: Stand, number: int = 0) -> None:
    """Compute enough that whatever was kept is over its horizon."""
    run(stand, f"time-{number}", [90 + number] * 300)


def test_after_its_horizon_a_prefix_lies_in_memory_and_costs_the_cache_nothing() -> None:
    stand = Stand(LIMITS)
    run(stand, "first", SYSTEM)
    pass_time(stand)
    assert stand.engine.occupancy().stored == len(SYSTEM)
    assert stand.backend.cells_held == 300


def test_a_prefix_that_lies_in_memory_is_not_computed_again() -> None:
    stand = Stand(LIMITS)
    run(stand, "first", SYSTEM)
    pass_time(stand)
    assert run(stand, "again", [*SYSTEM, 5, 6, 7]) == 3
    assert stand.reused["again"] == len(SYSTEM)
    assert stand.engine.scheduler.cache.stored == 0


def test_two_that_want_the_same_prefix_bring_it_back_once() -> None:
    stand = Stand(LIMITS)
    run(stand, "first", SYSTEM)
    pass_time(stand)
    before = computed(stand)
    for name in ("one", "two"):
        stand.submit(name, [*SYSTEM, ord(name[0]), 9], 2)
    stand.run()
    assert computed(stand) - before == 2 * 3
    assert stand.reused["one"] == stand.reused["two"] == len(SYSTEM)


def test_of_a_prefix_in_memory_only_what_is_in_common_comes_back() -> None:
    stand = Stand(LIMITS)
    run(stand, "first", SYSTEM)
    pass_time(stand)
    assert run(stand, "other", [*SYSTEM[:200], 1, 2, 3]) == 3
    assert run(stand, "first again", SYSTEM) == 1, "the rest still lies in memory"


def test_a_conversation_comes_back_with_all_its_turns() -> None:
    stand = Stand(LIMITS)
    for turn in (1, 2, 3):
        run(stand, f"turn-{turn}", SYSTEM * turn)
        pass_time(stand, turn)
    assert run(stand, "turn-4", [*SYSTEM * 3, 1]) == 1


def test_where_memory_is_full_the_longest_unused_is_forgotten() -> None:
    stand = Stand(replace(LIMITS, stored=1000))
    for number in range(5):
        run(stand, f"kept-{number}", [number + 1] * 250)
    pass_time(stand)
    assert stand.engine.scheduler.cache.stored == 1000
    assert run(stand, "newest", [5] * 250) == 1
    assert run(stand, "oldest", [1] * 250) == 250


def test_what_is_longer_than_all_the_memory_is_given_up() -> None:
    stand = Stand(replace(LIMITS, stored=299))
    run(stand, "first", SYSTEM)
    pass_time(stand)
    assert stand.engine.scheduler.cache.stored == 0
    assert run(stand, "again", SYSTEM) == len(SYSTEM)


def test_a_full_cache_puts_into_memory_what_it_gives_up() -> None:
    stand = Stand(replace(LIMITS, cells=400, horizon=10_000))
    run(stand, "first", SYSTEM)
    run(stand, "second", [9] * 300)
    assert run(stand, "again", SYSTEM) == 1


def test_a_slot_that_another_needs_is_free_once_what_it_holds_lies_in_memory() -> None:
    stand = Stand(replace(LIMITS, sequences=1, slots=2, horizon=10_000))
    for number in range(4):
        run(stand, f"kept-{number}", [*SYSTEM[:100], number, *[number] * 50])
    for number in range(4):
        assert run(stand, f"again-{number}", [*SYSTEM[:100], number, *[number] * 50]) == 1


def test_who_is_preempted_gets_its_tokens_back_from_memory() -> None:
    stand = Stand(Limits(sequences=2, cells=100, batch_tokens=100, prefill_tokens=100, slots=4, stored=1000))
    stand.submit("old", [3] * 30, 60)
    stand.submit("new", [4] * 30, 60)
    stand.run()
    assert stand.engine.occupancy().preemptions >= 1
    assert stand.text("new") == expected([4] * 30, 60)
    assert computed(stand) == 2 * (30 + 59)


def test_where_there_is_no_room_to_unpack_a_prefix_it_is_computed() -> None:
    stand = Stand(replace(LIMITS, cells=420, horizon=50))
    run(stand, "first", [7] * 350)
    pass_time(stand)
    stand.submit("runs", [8] * 80, 30)
    while not stand.outputs["runs"]:
        stand.step()
    stand.submit("again", [*[7] * 200, 1], 30)
    stand.run()
    assert stand.text("again") == expected([*[7] * 200, 1], 30)
    assert stand.reused["again"] == 0


def test_what_lies_in_memory_below_a_prefix_that_has_to_be_computed_is_not_computed_with_it() -> None:
    stand = Stand(replace(LIMITS, cells=420, horizon=50))
    system, more = list(range(100, 300)), list(range(300, 350))
    run(stand, "first", system)
    pass_time(stand)
    run(stand, "longer", [*system, *more, 1])
    pass_time(stand, 1)
    run(stand, "half", [*system[:100], 2, 2])  # the other half lies where 200 tokens have to be unpacked for it
    pass_time(stand, 2)
    stand.submit("runs", [8] * 125, 30)
    while not stand.outputs["runs"]:
        stand.step()
    again = [*system, *more, 1, 9, 9]
    stand.submit("again", again, 20)
    stand.run()
    assert stand.text("again") == expected(again, 20)
    assert stand.reused["again"] == 100 + len(more) + 1


def test_a_cancel_before_a_prefix_came_back_leaves_it_in_memory() -> None:
    stand = Stand(LIMITS)
    run(stand, "first", SYSTEM)
    pass_time(stand)
    stand.submit("other", [3] * 500, 1)
    stand.submit("again", [*SYSTEM, 1], 5)
    sequence = stand.engine.scheduler.waiting[-1]
    scheduler = stand.engine.scheduler
    scheduler.cache.enter(sequence)
    scheduler.cache.leave(sequence)
    assert scheduler.cache.stored == len(SYSTEM)
    stand.run()
    assert stand.reused["again"] == len(SYSTEM)


def test_what_goes_to_memory_and_comes_back_is_said_in_positions() -> None:
    stand = Stand(LIMITS)
    cache = stand.engine.scheduler.cache
    moves = []
    taken = cache.take_moves
    cache.take_moves = lambda: (moves.extend(found := taken()), found)[1]  # type: ignore[method-assign]
    run(stand, "first", SYSTEM)
    pass_time(stand)
    run(stand, "again", [*SYSTEM[:120], 1])
    swaps = [move for move in moves if isinstance(move, SwapOut | SwapIn)]
    assert [(move.start, move.end) for move in swaps] == [(0, 300), (0, 120)]
