"""What does not fit is left out from the oldest on: few messages, never the system's, never the last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.miner.api.prompts import most_prompt_tokens, shorten

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
