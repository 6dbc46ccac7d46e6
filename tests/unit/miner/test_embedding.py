"""Texts to vectors: in parts, beside answers, and of every token whatever the cache holds of it already."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.backend import Pooling
from services.miner.engine.embedding import Embedding
from services.miner.engine.messages import FinishReason, Submit
from tests.unit.miner.test_engine import LIMITS, Stand, expected, prompts

ROWS = np.asarray([[3, 0], [0, 4], [1, 0], [0, 8]], np.float32)


@pytest.mark.parametrize(("pooling", "direction"), [("mean", (4, 12)), ("last", (0, 8)), ("first", (3, 0))])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_the_vector_is_the_same_in_how_many_parts_the_text_comes(
    pooling: Pooling, direction: tuple[float, float], cut: int
) -> None:
    embedding = Embedding(pooling)
    for start in range(0, len(ROWS), cut):
        embedding.add(start, ROWS[start : start + cut])
    assert embedding.vector() == pytest.approx(np.asarray(direction) / np.linalg.norm(direction))


def test_a_text_that_begins_again_forgets_what_came_before() -> None:
    embedding = Embedding("mean")
    embedding.add(0, ROWS[3:])
    embedding.add(0, ROWS[:2])
    assert embedding.vector() == pytest.approx((0.6, 0.8))


def test_nothing_has_no_direction() -> None:
    embedding = Embedding("mean")
    embedding.add(0, np.zeros((2, 3), np.float32))
    assert embedding.vector() == (0.0, 0.0, 0.0)


def embed(stand: Stand, name: str, text: list[int]) -> None:
    stand.outputs[name] = []
    stand.engine.submit(Submit(name, tuple(text), 0, embeds=True))


def vector_of(text: list[int]) -> tuple[float, float]:
    """The mean of what the fake model says of each token: its number and its place, as a direction."""
    total = np.asarray([sum(text), sum(range(len(text)))], np.float64)
    first, second = (total / np.linalg.norm(total)).tolist()
    return first, second


def test_every_token_of_a_text_counts_also_where_the_cache_holds_its_beginning() -> None:
    stand = Stand()
    stand.submit("answer", [1, 2, 3, 4, 5, 6], 3)
    stand.run()
    for name in ("one", "again"):
        embed(stand, name, [1, 2, 3, 4, 5, 6, 7])
        stand.run()
        assert stand.outputs[name][-1].embedding == pytest.approx(vector_of([1, 2, 3, 4, 5, 6, 7]))
        assert stand.finish(name) is FinishReason.STOP
    stand.check_nothing_left()


def test_while_texts_are_embedded_answers_get_every_other_step() -> None:
    stand = Stand(dataclasses.replace(LIMITS, embed_tokens=4))
    stand.submit("answer", [1, 2], 6)
    stand.step()
    embed(stand, "text", list(range(1, 30)))
    turns = []
    for _ in range(6):
        stand.step()
        turns.append([name for name, _ in stand.backend.batches[-1]])
    assert turns == [["text"], ["answer"]] * 3
    stand.run()
    assert stand.text("answer") == expected([1, 2], 6)


def test_several_texts_share_a_step() -> None:
    stand = Stand(dataclasses.replace(LIMITS, embed_tokens=8))
    for name in ("one", "two", "three"):
        embed(stand, name, [1, 2, 3, 4])
    stand.step()
    assert stand.backend.batches == [[("one", 4), ("two", 4)]]


def test_a_text_that_can_never_fit_is_refused() -> None:
    stand = Stand()
    embed(stand, "huge", [1] * (LIMITS.cells + 1))
    stand.run()
    assert stand.finish("huge") is FinishReason.ERROR


arrivals = st.lists(st.tuples(prompts, st.integers(0, 12), st.integers(0, 20)), min_size=1, max_size=12)


@given(arrivals, st.integers(0, 3), st.data())
def test_answers_and_texts_together_get_what_each_gets_alone(
    wanted: list[tuple[list[int], int, int]], missing: int, data: st.DataObject
) -> None:
    stand = Stand(cells=LIMITS.cells - missing)
    turn = 0
    for number, (prompt, answer, when) in enumerate(sorted(wanted, key=lambda arrival: arrival[2])):
        while turn < when and not stand.engine.idle:
            stand.step()
            turn += 1
        if answer:
            stand.submit(str(number), prompt, answer)
        else:
            embed(stand, str(number), prompt)
    cancelled = data.draw(st.sets(st.integers(0, len(wanted) - 1), max_size=3))
    for number in sorted(cancelled):
        stand.step()
        stand.engine.cancel(str(number))
    stand.run()
    for number, (prompt, answer, _) in enumerate(sorted(wanted, key=lambda arrival: arrival[2])):
        if number in cancelled:
            continue
        if answer:
            assert stand.text(str(number)) == expected(prompt, answer)
        else:
            assert stand.outputs[str(number)][-1].embedding == pytest.approx(vector_of(prompt))
    stand.check_nothing_left()
