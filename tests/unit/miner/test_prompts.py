"""What does not fit is left out from the oldest on: few messages, never the system's, never the last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.api.errors import ApiError
from services.miner.api.prompts import bare_prompt, chat_prompt, most_prompt_tokens, shorten, texts_to_embed
from services.miner.api.schema import ChatRequest, CompletionRequest, EmbeddingRequest
from services.miner.model.chat_template import ChatTemplate
from services.miner.served import ServedModel

Message = dict[str, str]
messages = st.lists(
    st.builds(
        lambda role, length: {"role": role, "content": "x" * length},
        st.sampled_from(["system", "user", "user", "assistant"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=12,
)


def rendered(conversation: list[Message]) -> list[int]:
    """As many tokens as the texts have characters, and three around each message."""
    return [0] * sum(3 + len(message["content"]) for message in conversation)


@given(messages, st.integers(1, 200))
def test_what_is_left_is_the_longest_end_that_fits_and_begins_with_a_user(
    conversation: list[Message], most: int
) -> None:
    whole = rendered(conversation)
    prompt = shorten(whole, conversation, most, rendered)
    system = next((i for i, message in enumerate(conversation) if message["role"] != "system"), len(conversation))
    ends = [
        (cut - system, rendered([*conversation[:system], *conversation[cut:]]))
        for cut in range(system + 1, len(conversation))
        if conversation[cut]["role"] == "user"
    ]
    fitting = [(0, whole), *ends] if len(whole) <= most else [end for end in ends if len(end[1]) <= most]
    left_out, tokens = fitting[0] if fitting else (0, whole)
    assert (prompt.left_out, prompt.tokens) == (left_out, tokens)


def test_the_last_message_is_never_left_out() -> None:
    conversation = [{"role": "user", "content": "x" * 50}, {"role": "user", "content": "y" * 10}]
    assert shorten(rendered(conversation), conversation, 5, rendered).left_out == 0


def test_a_template_is_asked_a_few_times_and_not_once_a_message() -> None:
    conversation = [{"role": "user", "content": "x"}] * 4096
    asked = []

    def counted(these: list[Message]) -> list[int]:
        asked.append(len(these))
        return rendered(these)

    assert shorten(rendered(conversation), conversation, 100, counted).left_out == 4096 - 25
    assert len(asked) <= 14


def test_an_answer_keeps_its_room_but_never_more_than_half() -> None:
    assert most_prompt_tokens(1000, 100) == 900
    assert most_prompt_tokens(1000, 5000) == 500
    assert most_prompt_tokens(1000, None) == 750
    assert most_prompt_tokens(1, None) == 1


class Pairs:
    """A vocabulary whose tokens have at most two bytes, and that counts what it is asked."""

    size, adds_bos, bos, longest = 1000, False, "", 2

    def __init__(self) -> None:
        self.asked = 0

    def tokenise(self, text: str, **_: bool) -> list[int]:
        self.asked += 1
        return [0] * -(-len(text.encode()) // 2)


def serving(vocabulary: object) -> ServedModel:
    template = ChatTemplate("{{ messages[0].content }}", bos="", eos="")
    return cast("ServedModel", SimpleNamespace(vocabulary=vocabulary, template=template, sequence_tokens=10))


def completion(text: str) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": text})


def chat(text: str) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": text}]})


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised() -> None:
    vocabulary = Pairs()
    served = serving(vocabulary)
    embed = EmbeddingRequest.model_validate({"model": "m", "input": ["x", "é" * 11]})
    for make in (
        lambda: bare_prompt(served, completion("é" * 11), None),
        lambda: chat_prompt(served, chat("é" * 11), None),
        lambda: texts_to_embed(served, embed),
    ):
        with pytest.raises(ApiError, match=r"10 tokens of at most 2 bytes, the text has 22 bytes") as caught:
            make()
        assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert not vocabulary.asked
    assert len(bare_prompt(served, completion("é" * 10), None).tokens) == 10


def test_where_a_prompt_may_be_cut_or_nobody_knows_the_longest_token_its_length_alone_refuses_nothing() -> None:
    served = serving(Pairs())
    assert bare_prompt(served, completion("é" * 500), 8).left_out == 492
    assert len(chat_prompt(served, chat("é" * 500), 8).tokens) == 500
    vocabulary = Pairs()
    vocabulary.longest = None  # type: ignore[assignment]
    assert len(bare_prompt(serving(vocabulary), completion("é" * 500), None).tokens) == 500
