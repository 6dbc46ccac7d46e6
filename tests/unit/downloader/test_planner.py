"""Who fetches what: in order, nothing twice, and no connection without work while another has too much."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.downloader.limits import Limits
from services.downloader.transfer.planner import Claim, Planner
from services.downloader.transfer.ranges import Ranges, add_range

LIMITS = Limits(connections=4, range_bytes=100, least_range_bytes=10, window_bytes=350)


def planner(held: Ranges = (), size: int = 1000, limits: Limits = LIMITS) -> Planner:
    return Planner(held, size, limits)


def claim(plan: Planner, now: float = 0.0, until: int = 10**9) -> Claim:
    claimed = plan.claim(now, until)
    assert claimed is not None
    return claimed


def bounds(claimed: Claim) -> tuple[int, int]:
    return claimed.at, claimed.end


def test_ranges_are_claimed_in_order_around_what_is_there() -> None:
    plan = planner(((50, 80), (140, 150)), limits=replace(LIMITS, connections=1))
    assert [bounds(claim(plan)) for _ in range(4)] == [(0, 50), (80, 140), (150, 250), (250, 350)]


def test_a_small_file_is_cut_so_that_every_connection_has_work() -> None:
    assert bounds(claim(planner(size=160))) == (0, 10)
    assert bounds(claim(planner(size=800))) == (0, 50)
    assert bounds(claim(planner(size=80_000))) == (0, 100)


def test_nothing_is_claimed_beyond_the_window() -> None:
    plan = planner(size=100_000)
    claims = [claim(plan) for _ in range(4)]
    assert bounds(claims[-1]) == (300, 400)
    assert plan.claim(0.0, 10**9) is None
    plan.advance(claims[0], 100, 0.0)
    assert bounds(claim(plan)) == (400, 500)


def test_nothing_is_claimed_beyond_what_low_space_mode_allows() -> None:
    plan = planner(size=100_000)
    assert bounds(claim(plan, until=60)) == (0, 60)
    assert plan.claim(0.0, 60) is None


def test_what_did_not_come_is_missing_again() -> None:
    plan = planner(size=100, limits=replace(LIMITS, connections=1))
    first = claim(plan)
    plan.advance(first, 30, 0.0)
    plan.release(first)
    assert bounds(claim(plan)) == (30, 100)


def test_a_connection_without_work_takes_the_second_half_of_the_claim_that_ends_last() -> None:
    plan = planner(size=400, limits=replace(LIMITS, range_bytes=200, connections=1))
    slow, fast = claim(plan), claim(plan)
    plan.advance(slow, 40, 0.0)
    plan.advance(fast, 180, 0.0)
    assert bounds(claim(plan, now=10.0)) == (120, 200)
    assert bounds(slow) == (40, 120)
    assert slow.is_cut
    assert not fast.is_cut
    assert plan.advance(slow, 200, 0.0) == 80  # what its answer brings beyond its new end is not its own


def test_a_claim_that_ends_soon_is_left_alone() -> None:
    plan = planner(size=100, limits=replace(LIMITS, connections=1))
    almost = claim(plan)
    plan.advance(almost, 60, 0.0)
    assert plan.claim(0.3, 10**9) is None


def test_a_claim_that_has_just_begun_is_not_judged_by_its_first_bytes() -> None:
    plan = planner(size=1000, limits=replace(LIMITS, connections=1, range_bytes=1000, least_range_bytes=1000))
    young = claim(plan)
    plan.advance(young, 1, 0.04)
    assert plan.claim(0.05, 10**9) is None
    assert plan.claim(4.9, 10**9) is None
    assert claim(plan, now=5.1).relieved is young


def test_a_claim_that_hardly_moves_is_taken_over_whole_and_the_heir_is_given_more_time() -> None:
    plan = planner(size=15, limits=replace(LIMITS, connections=1))
    stuck = claim(plan)
    plan.advance(stuck, 1, 0.0)
    heir = claim(plan, now=5.0)
    assert heir.relieved is stuck
    assert bounds(heir) == (1, 15)
    assert stuck.left == 0
    assert plan.claim(now=12.0, until=10**9) is None
    assert claim(plan, now=40.0).relieved is heir


@settings(max_examples=300)
@given(st.data())
def test_whatever_connections_do_every_byte_comes_once_and_the_file_is_filled(data: st.DataObject) -> None:
    """Connections advance, break, are late and are relieved in any order; a model of the bytes says what is right."""
    size = data.draw(st.integers(1, 400))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), max_size=4))
    held: Ranges = ()
    for start, end in pairs:
        held = add_range(held, start, end)
    limits = Limits(
        connections=data.draw(st.integers(1, 4)),
        range_bytes=data.draw(st.integers(1, 80)),
        least_range_bytes=data.draw(st.integers(1, 20)),
        window_bytes=data.draw(st.integers(1, 200)),
    )
    plan, running, now = planner(held, size, limits), [], 0.0
    missing = set(range(size)) - {byte for start, end in held for byte in range(start, end)}
    for _ in range(10_000):
        if plan.is_complete:
            break
        now += data.draw(st.sampled_from([0.1, 1.0, 30.0])) if len(running) > 1 else 0.1
        claimed = plan.claim(now, size) if len(running) < limits.connections else None
        if claimed is not None:
            assert not any(one.at < claimed.end and claimed.at < one.end for one in running if one.left > 0)
            running.append(claimed)
        busy = data.draw(st.sampled_from(running))
        at = busy.at
        kept = plan.advance(busy, data.draw(st.integers(0, 50)) if len(running) > 1 else 50, now)
        assert set(range(at, at + kept)) <= missing  # no byte is taken twice
        missing -= set(range(at, at + kept))
        if busy.left == 0 or data.draw(st.booleans()):
            plan.release(busy)
            running.remove(busy)
    assert plan.is_complete
    assert missing == set()
