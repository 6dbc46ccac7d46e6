"""Beginnings that requests have in common: computed once, kept while they are of use, given up for whoever runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.messages import FinishReason, Submit
from services.miner.engine.prefix_cache import EXPIRY_STEP
from services.miner.engine.prefix_tree import common_prefix, make_root, match
from services.miner.engine.scheduler import Limits
from tests.unit.miner.test_engine import Stand, expected, requests

LIMITS = Limits(sequences=16, cells=4000, batch_tokens=64, prefill_tokens=32, quantum=16, slots=32, horizon=1000)
SYSTEM = [40 + number % 7 for number in range(300)]


def computed(stand: Stand) -> int:
    """Tokens that the model computed."""
    return sum(count for batch in stand.backend.batches for _, count in batch)


def test_sixteen_requests_that_arrive_together_compute_their_common_beginning_once() -> None:
    stand = Stand(LIMITS)
    for number in range(16):
        stand.submit(str(number), [*SYSTEM, 60 + number], 4)
    stand.run()
    assert computed(stand) == len(SYSTEM) + 16 * 4
    for number in range(16):
        assert stand.text(str(number)) == expected([*SYSTEM, 60 + number], 4)
    assert sum(stand.reused.values()) == 15 * len(SYSTEM)


def test_a_request_takes_the_beginning_of_one_that_is_still_in_prefill() -> None:
    stand = Stand(LIMITS)
    stand.submit("first", [*SYSTEM, 1], 2)
    stand.step()
    stand.submit("second", [*SYSTEM[:200], 2, 3, 4], 2)
    stand.run()
    assert computed(stand) == len(SYSTEM) + 2 + 3 + 1
    assert stand.reused == {"first": 0, "second": 200}


def test_the_same_prompt_again_computes_only_its_last_token() -> None:
    stand = Stand(LIMITS)
    stand.submit("first", SYSTEM, 1)
    stand.run()
    before = computed(stand)
    stand.submit("again", SYSTEM, 1)
    stand.run()
    assert computed(stand) - before == 1
    assert stand.text("again") == stand.text("first")


def test_a_request_that_wants_nothing_from_the_cache_computes_all_of_its_prompt() -> None:
    stand = Stand(LIMITS)
    stand.submit("first", SYSTEM, 2)
    stand.run()
    before = computed(stand)
    stand.outputs["alone"] = []
    stand.engine.submit(Submit("alone", tuple(SYSTEM), 2, reuses=False))
    stand.run()
    assert computed(stand) - before == len(SYSTEM) + 1
    assert (stand.text("alone"), stand.reused["alone"]) == (stand.text("first"), 0)
    stand.check_nothing_left()


def test_a_conversation_goes_on_from_the_cells_of_its_last_answer() -> None:
    stand = Stand(LIMITS)
    stand.submit("question", SYSTEM, 10)
    stand.run()
    history = list(SYSTEM)
    for _ in range(10):
        history.append(stand.backend.token_after(tuple(history)))
    before = computed(stand)
    stand.submit("more", [*history, 7, 8, 9], 1)
    stand.run()
    assert computed(stand) - before == 3 + 1  # the answer's last token was never computed


def test_when_the_one_who_computes_leaves_another_goes_on_where_it_was() -> None:
    stand = Stand(LIMITS)
    for name in ("writer", "heir", "third"):
        stand.submit(name, [*SYSTEM, len(name)], 2)
    for _ in range(3):
        stand.step()
    done = computed(stand)
    assert 0 < done < len(SYSTEM)
    stand.engine.cancel("writer")
    stand.run()
    assert computed(stand) == len(SYSTEM) + 2 * 2
    assert stand.text("heir") == expected([*SYSTEM, 4], 2)


def test_a_preempted_request_computes_again_only_what_was_given_up() -> None:
    limits = Limits(sequences=2, cells=100, batch_tokens=100, prefill_tokens=100, slots=4)
    stand = Stand(limits)
    stand.submit("old", [3] * 30, 60)
    stand.submit("new", [4] * 30, 60)
    stand.run()
    assert stand.engine.occupancy().preemptions >= 1
    assert stand.text("new") == expected([4] * 30, 60)
    alone = 2 * (30 + 59)
    assert computed(stand) - alone < 60, "all of it would be 30 + what was generated"


def test_what_runs_takes_the_room_of_what_is_kept_the_longest_unused_first() -> None:
    limits = Limits(sequences=2, cells=300, batch_tokens=64, prefill_tokens=64, slots=8)
    stand = Stand(limits)
    for token in (1, 2, 3):
        stand.submit(f"kept-{token}", [token] * 90, 1)
        stand.run()
    stand.submit("big", [9] * 120, 1)
    stand.run()
    before = computed(stand)
    stand.submit("newest", [3] * 90, 1)
    stand.run()
    assert computed(stand) - before == 1
    stand.submit("oldest", [1] * 90, 1)
    stand.run()
    assert computed(stand) - before - 1 > 60


def test_a_kept_prefix_is_cut_at_its_end_and_its_beginning_serves_on() -> None:
    limits = Limits(sequences=2, cells=1000, batch_tokens=64, prefill_tokens=64, slots=8)
    stand = Stand(limits)
    stand.submit("long", SYSTEM * 3, 1)
    stand.run()
    stand.submit("other", [9] * 150, 1)
    stand.run()
    before = computed(stand)
    stand.submit("again", SYSTEM * 3, 1)
    stand.run()
    assert computed(stand) - before <= 65


def test_what_nobody_asks_for_is_given_up_after_its_horizon_and_what_served_twice_later() -> None:
    stand = Stand(LIMITS)
    stand.submit("once", [1] * 100, 1)
    stand.run()
    for _ in range(2):
        stand.submit("twice", [2] * 100, 1)
        stand.run()
    for number in range(7):
        stand.submit(f"other-{number}", [10 + number] * 250, 1)
        stand.run()
    for name, prompt, again in (("twice", [2] * 100, 1), ("once", [1] * 100, 100)):
        before = computed(stand)
        stand.submit(name, prompt, 1)
        stand.run()
        assert computed(stand) - before == again


def test_a_conversation_and_a_repeated_answer_keep_one_slot_each_and_not_one_a_turn() -> None:
    stand = Stand(LIMITS)
    for turn in (1, 2, 3):
        stand.submit("talk", SYSTEM * turn, 1)
        stand.run()
    assert len(stand.engine.scheduler.cache.kept) == 1
    for name in ("one", "two"):  # together, so that both compute the same answer
        stand.submit(name, [5] * 20, 9)
    stand.run()
    assert len(stand.engine.scheduler.cache.kept) == 2


def test_a_request_that_matches_the_last_kept_slot_gets_its_cells_when_another_needs_that_slot() -> None:
    stand = Stand(Limits(sequences=2, cells=1000, batch_tokens=64, prefill_tokens=32, slots=2))
    stand.submit("before", SYSTEM, 1)
    stand.run()
    before = computed(stand)
    stand.submit("same", SYSTEM, 3)
    stand.submit("other", [9] * 20, 3)
    stand.run()
    assert computed(stand) - before == 3 + 20 + 2
    stand.check_nothing_left()


def test_who_needs_a_slot_gives_up_another_prefix_than_its_own() -> None:
    stand = Stand(Limits(sequences=1, cells=1000, batch_tokens=64, prefill_tokens=32, slots=3))
    for name, token in (("oldest", 1), ("middle", 2), ("newest", 3)):
        stand.submit(name, [token] * 50, 1)
        stand.run()
    before = computed(stand)
    stand.submit("again", [1] * 50, 1)
    stand.run()
    assert computed(stand) - before == 1


def test_where_nothing_is_asked_for_again_little_is_kept_and_where_much_is_more() -> None:
    kept = {}
    for name, asked_again in (("once", False), ("again", True)):
        stand = Stand(LIMITS)
        for number in range(120):
            prompt = [number // 2 if asked_again else number, *SYSTEM[:50]]
            stand.submit(str(number), prompt, 1)
            stand.run()
        kept[name] = stand.engine.scheduler.cache.held
    assert kept["once"] <= LIMITS.horizon / 8 + EXPIRY_STEP + len(SYSTEM)
    assert kept["again"] >= 2 * kept["once"]


def test_without_sharing_every_request_computes_everything_and_nothing_is_kept() -> None:
    stand = Stand(Limits(sequences=4, cells=4000, slots=16, sharing=False))
    for number in range(4):
        stand.submit(str(number), SYSTEM, 1)
    stand.run()
    assert computed(stand) == 4 * len(SYSTEM)
    assert stand.reused == dict.fromkeys("0123", 0)
    assert stand.backend.cells_held == 0


def test_a_request_that_follows_another_does_not_wait_longer_than_alone() -> None:
    stand = Stand(LIMITS)
    stand.submit("first", [*SYSTEM, 1], 20)
    stand.submit("same", [*SYSTEM, 2], 20)
    steps = 0
    while not stand.outputs["same"]:
        stand.step()
        steps += 1
    assert steps <= len(SYSTEM) // LIMITS.prefill_tokens + 2


limits = st.builds(
    Limits,
    sequences=st.integers(1, 5),
    cells=st.sampled_from([64, 90]),
    batch_tokens=st.integers(5, 40),
    prefill_tokens=st.integers(1, 16),
    quantum=st.integers(1, 8),
    slots=st.integers(0, 9),
    horizon=st.sampled_from([0, 50, 10_000]),
    stored=st.sampled_from([0, 0, 30, 200]),
    sharing=st.sampled_from([True, True, True, False]),
    apart=st.booleans(),
    gather_steps=st.sampled_from([0, 1, 3]),
)


@given(limits, requests, st.data())
def test_whatever_the_limits_and_the_cancels_every_answer_is_as_if_alone(
    drawn: Limits, arrivals: list[tuple[list[int], int, int]], data: st.DataObject
) -> None:
    stand = Stand(drawn, cells=drawn.cells - data.draw(st.sampled_from([0, 0, 4] if not drawn.stored else [0])))
    cancelled = set()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        stand.submit(str(number), prompt, max_tokens)
        for _ in range(data.draw(st.integers(0, 6))):
            stand.step()
        if data.draw(st.integers(0, 4)) == 0:
            gone = str(data.draw(st.integers(0, number)))
            stand.engine.cancel(gone)
            cancelled.add(gone)
    stand.run()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        if str(number) not in cancelled:
            assert stand.finish(str(number)) is FinishReason.LENGTH
            assert stand.text(str(number)) == expected(prompt, max_tokens)
    stand.check_nothing_left()


tokens = st.lists(st.integers(0, 2), max_size=12)


@given(tokens, tokens, st.integers(0, 12))
def test_the_common_prefix_is_the_one_that_a_loop_finds(run: list[int], prompt: list[int], start: int) -> None:
    start = min(start, len(prompt))
    longest = 0
    while longest < min(len(run), len(prompt) - start) and run[longest] == prompt[start + longest]:
        longest += 1
    assert common_prefix(run, prompt, start, len(prompt)) == longest


def test_an_empty_tree_knows_no_beginning() -> None:
    assert match(make_root(), [1, 2, 3], 3).length == 0
