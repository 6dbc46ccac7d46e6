"""The calls among the outputs of a request, taken out of its text while it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from services.miner.api.choices import Choice
from services.miner.api.tools.calls import CallParser
from services.miner.engine.messages import FinishReason

CALLED = "tool_calls"  # why an answer ended, in OpenAI's words


async def with_calls(choices: AsyncIterator[Choice], names: Collection[str]) -> AsyncIterator[Choice]:
    """Yield the same outputs with the calls of functions of these names beside the text instead of in it."""
    parsers: dict[int, CallParser] = {}
    made: Counter[int] = Counter()
    async for choice in choices:
        index, output = choice.index, choice.output
        parser = parsers.setdefault(index, CallParser(names))
        text, calls = parser.push(output.text)
        if output.finish is not None:
            rest, last = parser.finish()
            text, calls = text + rest, [*calls, *last]
        first = made[index]
        made[index] += len(calls)
        ending = CALLED if made[index] and output.finish is FinishReason.STOP else None
        yield Choice(index, replace(output, text=text), tuple(calls), first, ending)
