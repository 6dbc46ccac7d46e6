"""What the launcher makes of refusals, which differ from server to server."""

from __future__ import annotations

import json

import pytest
import requests

from launcher.completions import TooLongError, refusal, without_refused
from shared.errors import ConfigurationError, EngineError, NotReadyError, R3mesError, UsageError

BODY = {"model": "m", "max_tokens": 5, "temperature": 0.2, "stream": True, "stream_options": {"include_usage": True}}


def answer(status: int, message: str, code: str | None = None, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps({"error": {"message": message, "code": code}}).encode()
    response.headers.update(headers)
    return response


@pytest.mark.parametrize(
    ("response", "kind", "step"),
    [
        (answer(429, "too many", **{"Retry-After": "3"}), NotReadyError, "try again in 3 s"),
        (answer(503, "loading", **{"Retry-After": "soon\n"}), NotReadyError, "r3mes status"),
        (answer(401, "no key"), ConfigurationError, "set R3MES_API_KEYS"),
        (answer(400, "9000 tokens", "context_length_exceeded"), TooLongError, "ask a shorter question"),
        (answer(404, "no such model", "model_not_found"), UsageError, ""),
        (answer(500, "the engine ended"), EngineError, "read the miner's log"),
    ],
)
def test_a_refusal_says_what_to_do(response: requests.Response, kind: type[R3mesError], step: str) -> None:
    error = refusal(response)
    assert type(error) is kind
    assert error.next_step.startswith(step)


def test_what_a_server_does_not_know_is_left_out() -> None:
    without = without_refused(BODY, answer(400, "Unknown parameter: 'stream_options'"))
    assert without is not None
    assert set(BODY) - set(without) == {"stream_options"}
    assert without_refused(without, answer(400, "Unknown parameter: 'stream_options'")) is None


def test_tokens_are_named_as_a_server_wants_them() -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens' instead."
    renamed = without_refused(BODY, answer(400, said))
    assert renamed is not None
    assert renamed["max_completion_tokens"] == 5
    assert "max_tokens" not in renamed


@pytest.mark.parametrize("response", [answer(400, "messages is empty"), answer(503, "stream_options"), answer(404, "")])
def test_no_other_refusal_is_argued_with(response: requests.Response) -> None:
    assert without_refused(BODY, response) is None
