"""From a request to the tokens of its prompt. Where it may be cut, the oldest goes first.

Cutting leaves out whole messages: those that come after the system's at the beginning, up to a user's one, so that
every template still sees a conversation as it was trained on. The last message stays whole. Of a bare prompt the last
tokens stay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from services.miner.api.errors import invalid
from services.miner.api.schema import ChatRequest, CompletionRequest, EmbeddingRequest
from services.miner.model.vocabulary import Tokeniser
from services.miner.served import ServedModel

ANSWER_SHARE = 4  # of the context, one part in so many is left for an answer whose length nobody named


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, and what was left out so that they fit: messages of a conversation, or tokens of a bare prompt."""

    tokens: list[int]
    left_out: int = 0


def most_prompt_tokens(context: int, answer: int | None) -> int:
    """Return how many tokens a prompt may keep that is cut: what the answer leaves, but at least half."""
    if answer is None:
        return max(context - context // ANSWER_SHARE, 1)
    return max(context - answer, context // 2, 1)


def chat_prompt(served: ServedModel, request: ChatRequest, most: int | None) -> Prompt:
    """Render a conversation; with `most`, without its oldest messages where it has more tokens than that.

    Raises ApiError where it cannot fit and nothing may be cut.
    """
    tools = [tool.plain() for tool in request.offered]
    if tools and not served.template.takes_tools:
        raise invalid("tools: the chat template of this model has no place for them", "tools", "unsupported_parameter")

    def rendered(messages: list[dict[str, Any]]) -> list[int]:
        return _rendered(served, messages, tools, cuts=most is not None)

    messages = [message.plain() for message in request.messages]
    whole = rendered(messages)
    return Prompt(whole) if most is None else shorten(whole, messages, most, rendered)


def shorten(
    whole: list[int], messages: list[dict[str, Any]], most: int, rendered: Callable[[list[dict[str, Any]]], list[int]]
) -> Prompt:
    """Leave out as few of the oldest messages as it takes; `whole` where nothing helps. Pure but for `rendered`."""
    if len(whole) <= most:
        return Prompt(whole)
    system = next((place for place, message in enumerate(messages) if message["role"] != "system"), len(messages))
    cuts = [place for place in range(system + 1, len(messages)) if messages[place]["role"] == "user"]

    @cache  # the one that is found was rendered to find it
    def shortened(cut: int) -> list[int]:
        return rendered([*messages[:system], *messages[cut:]])

    found = bisect_left(cuts, True, key=lambda cut: len(shortened(cut)) <= most)  # the later the cut, the less is left
    if found == len(cuts):
        return Prompt(whole)  # whatever is left out, it does not fit
    return Prompt(shortened(cuts[found]), cuts[found] - system)


def bare_prompt(served: ServedModel, request: CompletionRequest, most: int | None) -> Prompt:
    """Tokenise a prompt; with `most`, its last so many tokens. Raises ApiError unless it is one that may fit."""
    prompt = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        vocabulary = served.vocabulary
        if most is None:
            _require_short(served, prompt, "prompt")
        return _last(vocabulary.tokenise(prompt, add_special=True, parse_special=False), most, vocabulary)
    tokens = [token for token in prompt if isinstance(token, int)]
    if len(tokens) != len(prompt):
        raise invalid("one prompt a request", "prompt", "unsupported_parameter")
    return _last(_known(served, tokens, "prompt"), most, None)


def texts_to_embed(served: ServedModel, request: EmbeddingRequest) -> list[list[int]]:
    """Tokenise each text as a prompt; raises ApiError for one that is empty, too long, or holds foreign tokens."""
    for text in request.texts:
        if isinstance(text, str):
            _require_short(served, text, "input")
    found = [
        served.vocabulary.tokenise(text, add_special=True, parse_special=False)
        if isinstance(text, str)
        else _known(served, text, "input")
        for text in request.texts
    ]
    if not all(found):
        raise invalid(f"input: text {found.index([])} is empty", "input")
    return found


def _require_short(served: ServedModel, text: str, parameter: str | None) -> None:
    """Refuse a text that has too many tokens however they fall, without the work of finding out how many."""
    longest = served.vocabulary.longest
    size = len(text.encode(errors="replace"))
    if longest is not None and size > served.sequence_tokens * longest:
        raise invalid(
            f"this model's context holds {served.sequence_tokens} tokens of at most {longest} bytes,"
            f" the text has {size} bytes",
            parameter,
            "context_length_exceeded",
        )


def _known(served: ServedModel, tokens: list[int], parameter: str) -> list[int]:
    if any(token >= served.vocabulary.size for token in tokens):
        raise invalid(f"the vocabulary has {served.vocabulary.size} tokens", parameter)
    return tokens


def _last(tokens: list[int], most: int | None, beginning: Tokeniser | None) -> Prompt:
    """Return the last `most` tokens; what the vocabulary put at the beginning stays there."""
    if most is None or len(tokens) <= most:
        return Prompt(tokens)
    kept = tokens[:1] if beginning is not None and beginning.adds_bos else []
    rest = tokens[len(tokens) - most + len(kept) :]
    return Prompt([*kept, *rest], len(tokens) - most)


def _rendered(
    served: ServedModel, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, cuts: bool
) -> list[int]:
    text = served.template.render(messages, tools)
    if not cuts:
        _require_short(served, text, None)
    vocabulary = served.vocabulary
    # A template that writes BOS itself must not get a second one.
    twice = vocabulary.adds_bos and bool(vocabulary.bos) and text.startswith(vocabulary.bos)
    return vocabulary.tokenise(text, add_special=not twice, parse_special=True)
