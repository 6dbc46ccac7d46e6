"""Who is blamed for a crash, for how long, and who never is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.miner.engine.blame import Blame, fingerprint
from services.miner.engine.messages import Sampling, Submit

SECONDS = 600.0
POISON = Submit("poison", (1, 2, 3), 8)
OTHER = Submit("other", (4, 5, 6), 8)
THIRD = Submit("third", (7, 8, 9), 8)


def crash(blame: Blame, *requests: Submit, now: float = 0.0, others: int = 0) -> frozenset[bytes]:
    return blame.crashed([fingerprint(request) for request in requests], now, others=others)


def test_a_request_that_was_alone_is_refused_until_the_window_is_over() -> None:
    blame = Blame(SECONDS)
    assert crash(blame, POISON) == {fingerprint(POISON)}
    again = replace(POISON, request_id="again", sampling=replace(POISON.sampling, seed=7))
    assert blame.refused_for(again, 10.0) == SECONDS - 10
    assert blame.refused_for(OTHER, 10.0) is None
    assert blame.refused_for(again, SECONDS) is None


@pytest.mark.parametrize(
    "different",
    [
        replace(POISON, prompt=(1, 2)),
        replace(POISON, max_tokens=9),
        replace(POISON, stop=("x",)),
        replace(POISON, sampling=Sampling(temperature=0.5)),
        replace(POISON, sampling=Sampling(logit_bias=((1, 2.0),))),
        replace(POISON, ignore_end=True),
    ],
)
def test_another_content_is_another_request(different: Submit) -> None:
    blame = Blame(SECONDS)
    crash(blame, POISON)
    assert blame.refused_for(different, 0.0) is None


def test_of_several_the_one_that_was_there_twice_is_blamed() -> None:
    blame = Blame(SECONDS)
    assert crash(blame, POISON, OTHER) == frozenset()
    assert blame.refused_for(POISON, 1.0) is None
    assert crash(blame, POISON, THIRD, now=1.0) == {fingerprint(POISON)}
    assert blame.refused_for(OTHER, 1.0) is None
    assert blame.refused_for(THIRD, 1.0) is None


def test_a_suspicion_ends_with_the_window_and_with_an_answer() -> None:
    blame = Blame(SECONDS)
    crash(blame, POISON, OTHER)
    assert crash(blame, POISON, THIRD, now=SECONDS) == frozenset()
    blame.answered(replace(POISON, request_id="again"))
    assert crash(blame, POISON, OTHER, now=SECONDS + 1) == frozenset()


def test_the_same_request_many_times_in_one_batch_is_one_request() -> None:
    blame = Blame(SECONDS)
    assert crash(blame, POISON, replace(POISON, request_id="twin")) == {fingerprint(POISON)}


def test_a_crash_for_nobody_or_for_one_beside_an_unknown_one_blames_nobody() -> None:
    blame = Blame(SECONDS)
    assert crash(blame) == frozenset()
    assert crash(blame, POISON, others=1) == frozenset()
    assert blame.refused_for(POISON, 0.0) is None


def test_a_table_that_is_full_forgets_the_oldest() -> None:
    blame = Blame(SECONDS, most=2)
    for request in (POISON, OTHER, THIRD):
        crash(blame, request)
    assert blame.refused_for(POISON, 0.0) is None
    assert blame.refused_for(OTHER, 0.0) == SECONDS
    assert blame.refused_for(THIRD, 0.0) == SECONDS


def test_a_blamed_request_that_crashes_again_is_refused_from_then_on_and_outlives_older_entries() -> None:
    blame = Blame(SECONDS, most=2)
    for now, request in enumerate((POISON, OTHER, POISON, THIRD)):
        crash(blame, request, now=float(now))
    assert blame.refused_for(POISON, 3.0) == SECONDS - 1
    assert blame.refused_for(OTHER, 3.0) is None
