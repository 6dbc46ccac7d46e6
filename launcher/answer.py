"""A question to the stack and its streamed answer, with the times that matter.

Order of calls: `Answer(base_url, question)` → iterate over the pieces of text as they come → `times`. Closing the
iterator closes the connection, and the miner frees the sequence.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from launcher.endpoints import error_message, session
from launcher.sse import event_data
from launcher.streams import write_data
from shared.errors import EngineError, NotReadyError, R3mesError, UsageError

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 300.0  # a long queue and a long prompt on a slow machine
_START = "start a stack: `make demo`, or `docker compose up`"


@dataclass(frozen=True, slots=True)
class Question:
    """One user message; `model` is a model's name, None asks the stack which one it serves."""

    text: str
    model: str | None = None
    max_tokens: int = 256
    temperature: float = 0.2


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """`tokens` generated; seconds from the question to the first and to the last of them."""

    tokens: int
    first_token_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """The rate after the first token; None when there is nothing to measure."""
        span = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / span if self.tokens > 1 and span > 0 else None


class Answer:
    """An answer that is read once, by iterating; raises what `__iter__` says."""

    def __init__(self, base_url: str, question: Question, *, api_key: str | None = None) -> None:
        self._base_url = base_url
        self._question = question
        self._session = session(api_key)
        self._asked_at = self._first_at = self._last_at = 0.0
        self._pieces = 0
        self._counted: int | None = None

    @property
    def times(self) -> AnswerTimes:
        """The measure of what was read so far."""
        tokens = self._pieces if self._counted is None else self._counted
        return AnswerTimes(tokens, self._first_at - self._asked_at, self._last_at - self._asked_at)

    def __iter__(self) -> Generator[str, None, None]:
        """Yield text as it comes.

        Raises NotReadyError when the stack does not answer or stops to, UsageError when it refuses the question,
        EngineError when it fails in the middle.
        """
        try:
            with self._session as client, self._ask(client) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _refusal(response)
                for data in event_data(response.iter_lines(chunk_size=None)):
                    if data == "[DONE]":
                        return
                    if text := self._take(data):
                        yield text
        except requests.RequestException as error:
            raise NotReadyError(f"no answer from {self._base_url}: {_reason(error)}", next_step=_START) from error
        raise NotReadyError("the answer was cut off: the miner went away", next_step="ask again")

    def _ask(self, client: requests.Session) -> requests.Response:
        model = self._question.model or self._served_model(client)
        self._asked_at = self._first_at = self._last_at = time.monotonic()
        return client.post(
            f"{self._base_url}/v1/chat/completions",
            json={
                "model": model,
                "messages": [{"role": "user", "content": self._question.text}],
                "max_tokens": self._question.max_tokens,
                "temperature": self._question.temperature,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            stream=True,
            timeout=(CONNECT_SECONDS, SILENT_SECONDS),
        )

    def _served_model(self, client: requests.Session) -> str:
        answer = client.get(f"{self._base_url}/v1/models", timeout=CONNECT_SECONDS)
        if answer.status_code != HTTPStatus.OK:
            raise _refusal(answer)
        try:
            return str(answer.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise NotReadyError(f"{self._base_url} serves no model", next_step="r3mes status") from error

    def _take(self, data: str) -> str:
        text, counted = parse_chunk(data)
        if counted is not None:
            self._counted = counted
        if text:
            self._last_at = time.monotonic()
            self._first_at = self._first_at if self._pieces else self._last_at
            self._pieces += 1
        return text


def write_answer(answer: Answer, *, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Write the pieces to stdout as they come, and a newline after the last; ends early once `is_wanted()` is false."""
    safe = printable if sys.stdout.isatty() else str
    wrote = False
    with closing(iter(answer)) as pieces:
        try:
            for text in pieces:
                if not is_wanted():
                    return
                write_data(safe(text))
                wrote = True
        finally:
            if wrote:
                write_data("\n")


def parse_chunk(data: str) -> tuple[str, int | None]:
    """Return the text of one chunk and, from a last one, the number of tokens generated; raises EngineError."""
    try:
        chunk: Any = json.loads(data)
        if "error" in chunk:
            raise EngineError(str(chunk["error"]["message"]), next_step="read the miner's log")
        usage = chunk.get("usage")
        counted = usage["completion_tokens"] if usage else None
        choices = chunk.get("choices") or [{}]
        text = choices[0].get("delta", {}).get("content") or ""
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"the answer is not what /v1/chat/completions promises: {data[:200]!r}") from error
    return str(text), counted if isinstance(counted, int) else None


def printable(text: str) -> str:
    """Return `text` without control characters but newline and tab: a model does not steer the terminal."""
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


def _refusal(response: requests.Response) -> R3mesError:
    message = error_message(response)
    if response.status_code in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY}:
        return NotReadyError(message, next_step="r3mes status")
    if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UsageError(message)
    return EngineError(message, next_step="read the miner's log")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.ConnectTimeout | requests.ConnectionError):
        return "nothing listens there, or it went away"
    return str(error)
