"""What `/v1/chat/completions` promises, ours and anybody else's: chunks of a stream, and refusals.

Servers differ in what they take: what one refuses by name is left out, or renamed, and the question asked again
(`without_refused`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from launcher.endpoints import error_message
from shared.errors import ConfigurationError, EngineError, NotReadyError, R3mesError, UsageError

# What a person can do without; OpenAI's newer models want the tokens under the other name.
_OPTIONAL = ("stream_options", "temperature")
_RENAMED = {"max_tokens": "max_completion_tokens"}
_TRY_AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY}
_UNKNOWN_FIELD = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}
_KEYS = "set R3MES_API_KEYS, or R3MES_API_KEYS_FILE, to a key of this server"


class TooLongError(UsageError):
    """The question, with what was said before it, does not fit the model's context."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. `thought`: the model wrote something that is not part of it.

    `tokens` is how many were generated in all, where the server counts; `finish_reason` stands in the last piece.
    """

    text: str = ""
    thought: bool = False
    tokens: int | None = None
    finish_reason: str | None = None


def parse_chunk(data: str) -> Chunk:
    """Return what one event holds; raises EngineError."""
    try:
        chunk: Any = json.loads(data)
        if "error" in chunk:
            raise EngineError(_error_text(chunk["error"]), next_step="read the miner's log")
        usage = chunk.get("usage")
        tokens = usage.get("completion_tokens") if usage else None
        choice = (chunk.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        return Chunk(
            str(delta.get("content") or ""),
            bool(delta.get("reasoning_content") or delta.get("reasoning")),
            tokens if isinstance(tokens, int) else None,
            choice.get("finish_reason"),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"the answer is not what /v1/chat/completions promises: {data[:200]!r}") from error


def without_refused(body: dict[str, Any], response: requests.Response) -> dict[str, Any] | None:
    """Return the body that this server might take, None where a refusal names nothing that one can do without."""
    if response.status_code not in _UNKNOWN_FIELD:
        return None
    said = error_message(response)
    for name, other in _RENAMED.items():
        if name in body and other in said:
            return {other if key == name else key: value for key, value in body.items()}
    for name in _OPTIONAL:
        if name in body and name in said:
            return {key: value for key, value in body.items() if key != name}
    return None


def refusal(response: requests.Response) -> R3mesError:
    """Return the error that an answer other than 200 means."""
    message = error_message(response)
    status = response.status_code
    if status in _TRY_AGAIN:
        after = response.headers.get("Retry-After", "")
        return NotReadyError(message, next_step=f"try again in {after} s" if after.isdigit() else "r3mes status")
    if status == HTTPStatus.UNAUTHORIZED:
        return ConfigurationError(message, next_step=_KEYS)
    if _code(response) == "context_length_exceeded":
        return TooLongError(message, next_step="ask a shorter question")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UsageError(message)
    return EngineError(message, next_step="read the miner's log")


def _code(response: requests.Response) -> str | None:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return None


def _error_text(error: object) -> str:
    return str(error["message"]) if isinstance(error, dict) else str(error)
