"""What the launcher makes of a streamed answer."""

import json

import pytest

from launcher.answer import AnswerTimes, Question, printable
from launcher.completions import Chunk, parse_chunk
from shared.errors import EngineError


def chunk(**fields: object) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (chunk(choices=[{"delta": {"role": "assistant"}}]), Chunk()),
        (chunk(choices=[{"delta": {"content": "Par"}}]), Chunk("Par")),
        (chunk(choices=[{"delta": {}, "finish_reason": "stop"}]), Chunk(finish_reason="stop")),
        (chunk(choices=[], usage={"completion_tokens": 12}), Chunk(tokens=12)),
        (chunk(choices=[{"delta": {"content": "is"}}], usage=None), Chunk("is")),
        (chunk(choices=[{"delta": {"content": None, "reasoning_content": "hm"}}]), Chunk(thought=True)),
        (chunk(choices=[{"finish_reason": "stop"}], usage={"total_tokens": 3}), Chunk(finish_reason="stop")),
    ],
)
def test_a_chunk_gives_text_and_the_last_ones_the_count_and_the_end(data: str, expected: Chunk) -> None:
    assert parse_chunk(data) == expected


def test_an_error_in_the_stream_is_an_engine_error_with_its_message() -> None:
    with pytest.raises(EngineError, match="the engine ended"):
        parse_chunk(chunk(error={"message": "the engine ended", "type": "server_error"}))
    with pytest.raises(EngineError, match="out of memory"):
        parse_chunk(chunk(error="out of memory"))  # as Ollama says it


@pytest.mark.parametrize("data", ["", "[]", "7", '{"choices": 3}', '{"choices": [7]}', '{"error": "bare"}'])
def test_what_is_not_a_chunk_is_an_engine_error(data: str) -> None:
    with pytest.raises(EngineError):
        parse_chunk(data)


def test_a_model_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x07\u009bc\n\td\u00a0é") == "a[2Jbc\n\td\u00a0é"


@pytest.mark.parametrize(
    ("times", "rate"),
    [(AnswerTimes(11, 0.5, 1.5), 10.0), (AnswerTimes(1, 0.5, 0.5), None), (AnswerTimes(0, 0.0, 0.0), None)],
)
def test_the_rate_counts_what_came_after_the_first_token(times: AnswerTimes, rate: float | None) -> None:
    assert times.tokens_per_second == rate


def test_a_question_carries_the_system_message_and_what_was_said_before() -> None:
    said = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    body = Question("c", system="Be brief.", history=said).body("m")
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][-1]["content"] == "c"


def test_what_is_left_to_the_server_is_not_sent() -> None:
    assert not {"max_tokens", "temperature"} & set(Question("c", max_tokens=None, temperature=None).body("m"))
