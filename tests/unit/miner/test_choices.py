"""Several answers of one request: interleaved as they come, and none is left running."""

from __future__ import annotations

import asyncio

import pytest

from services.miner.api.choices import Choice, fan_out, interleaved
from services.miner.engine.generation import EngineGoneError, Generation
from services.miner.engine.messages import FinishReason, Output, Sampling, Submit


def generation(*texts: str) -> Generation:
    """One that gives these texts, the last of them its end."""
    made = Generation(Submit("x", (1,), 9), lambda _: None)
    for number, text in enumerate(texts):
        made.put(Output("x", text, 1, FinishReason.STOP if number == len(texts) - 1 else None))
    return made


async def collected(generations: list[Generation]) -> list[Choice]:
    return [choice async for choice in interleaved(generations)]


@pytest.mark.parametrize("answers", [[("a",)], [("a", "b")], [("a", "b", "c"), ("d",), ("e", "f")]])
def test_every_choice_gets_its_own_texts_in_order(answers: list[tuple[str, ...]]) -> None:
    choices = asyncio.run(collected([generation(*texts) for texts in answers]))
    for index, texts in enumerate(answers):
        assert tuple(choice.output.text for choice in choices if choice.index == index) == texts


def test_a_slow_choice_holds_up_no_other() -> None:
    async def run() -> None:
        slow, fast = Generation(Submit("x", (1,), 9), lambda _: None), generation("a", "b", "c")
        choices = interleaved([slow, fast])
        assert [(await anext(choices)).output.text for _ in range(3)] == ["a", "b", "c"]
        slow.put(Output("x", "late", 1, FinishReason.LENGTH))
        assert (await anext(choices)).output.text == "late"
        with pytest.raises(StopAsyncIteration):
            await anext(choices)

    asyncio.run(run())


def test_a_dead_engine_ends_all_and_leaves_no_task() -> None:
    async def run() -> None:
        waiting, dead = (
            Generation(Submit("x", (1,), 9), lambda _: None),
            Generation(Submit("x", (1,), 9), lambda _: None),
        )
        dead.fail(EngineGoneError("it died"))
        with pytest.raises(EngineGoneError):
            await collected([waiting, dead])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_choices_differ_in_id_and_seed_and_in_nothing_else() -> None:
    submit = Submit("x", (1, 2), 5, ("stop",), Sampling(seed=2**32 - 2), logprobs=3)
    made = fan_out(submit, 4)
    assert made[0] is submit
    assert len({one.request_id for one in made}) == 4
    assert [one.sampling.seed for one in made] == [2**32 - 2, 2**32 - 1, 0, 1]
    assert {(one.prompt, one.max_tokens, one.stop, one.logprobs) for one in made} == {((1, 2), 5, ("stop",), 3)}
