"""A question to a stack, or to any OpenAI endpoint, and its streamed answer, with the times that matter.

Order of calls: `Answer(base_url, question)` → iterate over the pieces of text as they come → `times`. Closing the
iterator closes the connection, and the miner frees the sequence.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from launcher.completions import Chunk, parse_chunk, refusal, without_refused
from launcher.endpoints import no_answer, session
from launcher.sse import event_data, response_lines
from launcher.streams import write_data
from shared.errors import NotReadyError, UsageError

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 300.0  # a long queue and a long prompt on a slow machine
Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """One user message after those of `history`; `model` is a model's name, None asks which one is served.

    `max_tokens` and `temperature`: None leaves them to the server.
    """

    text: str
    model: str | None = None
    max_tokens: int | None = 256
    temperature: float | None = 0.2
    system: str = ""
    history: tuple[Message, ...] = ()

    def body(self, model: str) -> dict[str, Any]:
        """Return what is sent."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        limits = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {
            "model": model,
            "messages": [*system, *self.history, {"role": "user", "content": self.text}],
            **{name: value for name, value in limits.items() if value is not None},
            "stream": True,
            "stream_options": {"include_usage": True},
        }


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
        self._texts: list[str] = []
        self.model = question.model or ""
        self.finish_reason: str | None = None

    @property
    def times(self) -> AnswerTimes:
        """The measure of what was read so far; a server that counts no tokens has a piece taken for one."""
        tokens = self._pieces if self._counted is None else self._counted
        return AnswerTimes(tokens, self._first_at - self._asked_at, self._last_at - self._asked_at)

    @property
    def text(self) -> str:
        """What was read so far."""
        return "".join(self._texts)

    def __iter__(self) -> Generator[str, None, None]:
        """Yield text as it comes.

        Raises NotReadyError when the stack does not answer or stops to, UsageError when it refuses the question,
        ConfigurationError for a certificate or a key that is not accepted, EngineError when it fails in the middle.
        """
        try:
            with self._session as client, self._ask(client) as response:
                if response.status_code != HTTPStatus.OK:
                    raise refusal(response)
                for data in event_data(response_lines(response)):
                    if data == "[DONE]":
                        return
                    if text := self._take(parse_chunk(data)):
                        yield text
        except requests.RequestException as error:
            raise no_answer(self._base_url, error) from error
        if self.finish_reason is None:
            raise NotReadyError("the answer was cut off: the miner went away", next_step="ask again")

    def _ask(self, client: requests.Session) -> requests.Response:
        self.model = self.model or served_model(client, self._base_url)
        body: dict[str, Any] | None = self._question.body(self.model)
        while True:
            self._asked_at = self._first_at = self._last_at = time.monotonic()
            response = client.post(
                f"{self._base_url}/v1/chat/completions",
                json=body,
                stream=True,
                timeout=(CONNECT_SECONDS, SILENT_SECONDS),
            )
            if response.ok or body is None or (body := without_refused(body, response)) is None:
                return response
            response.close()

    def _take(self, chunk: Chunk) -> str:
        if chunk.tokens is not None:
            self._counted = chunk.tokens
        self.finish_reason = chunk.finish_reason or self.finish_reason
        if chunk.text or chunk.thought:
            self._last_at = time.monotonic()
            self._first_at = self._first_at if self._pieces else self._last_at
            self._pieces += 1
        self._texts.append(chunk.text)
        return chunk.text


def served_model(client: requests.Session, base_url: str) -> str:
    """Return the name of the first model that is served; raises requests.RequestException and what `refusal` gives."""
    answer = client.get(f"{base_url}/v1/models", timeout=CONNECT_SECONDS)
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise UsageError(f"{base_url}/v1 lists no models", next_step="check the URL, or name a model with --model")
    if answer.status_code != HTTPStatus.OK:
        raise refusal(answer)
    try:
        return str(answer.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError) as error:
        raise NotReadyError(f"{base_url} serves no model", next_step="r3mes status") from error


def write_answer(
    answer: Answer, *, is_wanted: Callable[[], bool] = lambda: True, on_first: Callable[[], None] = lambda: None
) -> None:
    """Write the pieces to stdout as they come, and a newline after the last; ends early once `is_wanted()` is false.

    `on_first` is called before the first piece, and in any case before this returns or raises.
    """
    safe = printable if sys.stdout.isatty() else str
    wrote = False
    with closing(iter(answer)) as pieces:
        try:
            for text in pieces:
                if not is_wanted():
                    return
                if not wrote:
                    on_first()
                write_data(safe(text))
                wrote = True
        finally:
            if wrote:
                write_data("\n")
            else:
                on_first()


def printable(text: str) -> str:
    """Return `text` without control characters but newline and tab: a model does not steer the terminal."""
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")
