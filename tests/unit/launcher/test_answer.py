"""What the launcher makes of a streamed answer."""

import json

import pytest

from launcher.answer import AnswerTimes, parse_chunk, printable
from shared.errors import EngineError


def chunk(**fields: object) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (chunk(choices=[{"delta": {"role": "assistant"}}]), ("", None)),
        (chunk(choices=[{"delta": {"content": "Par"}}]), ("Par", None)),
        (chunk(choices=[{"delta": {}, "finish_reason": "stop"}]), ("", None)),
        (chunk(choices=[], usage={"completion_tokens": 12}), ("", 12)),
        (chunk(choices=[{"delta": {"content": "is"}}], usage=None), ("is", None)),
    ],
)
def test_a_chunk_gives_text_and_the_last_one_the_count(data: str, expected: tuple[str, int | None]) -> None:
    assert parse_chunk(data) == expected


def test_an_error_in_the_stream_is_an_engine_error_with_its_message() -> None:
    with pytest.raises(EngineError, match="the engine ended"):
        parse_chunk(chunk(error={"message": "the engine ended", "type": "server_error"}))


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
