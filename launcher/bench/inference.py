"""Prefill and decode: what a miner gives one client, over HTTP, as any client would ask it.

The lengths are chosen by a warm-up, so that a small model is measured well and a large one in bounded time. No round
takes anything from the prefix cache.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from typing import Any

import requests

from launcher.bench.figures import Figure, Measured, Missing
from launcher.endpoints import error_message, session
from launcher.interrupts import StoppedError
from launcher.sse import event_data, response_lines

ROUNDS = 3
# A round should take about so many seconds, within these bounds of tokens.
PREFILL_SECONDS, DECODE_SECONDS = 3.0, 4.0
PREFILL_TOKENS, DECODE_TOKENS = (64, 512), (16, 128)
WARM_UP_WORDS, WARM_UP_TOKENS = 32, 8
SILENT_SECONDS = 60.0
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work number night point home water room mother area money"
)
_WORDS = _TEXT.split()

Say = Callable[[str, int, int], None]


class NoAnswerError(Exception):
    """The miner does not answer as it should; the text says how."""


class Asker:
    """Asks one miner for completions of `model`."""

    def __init__(self, url: str, model: str, api_key: str | None, stop: threading.Event) -> None:
        self._url = url
        self._model = model
        self._client = session(api_key)
        self._stop = stop
        self._random = random.SystemRandom()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def prefill(self, words: int) -> tuple[int, float]:
        """Let a prompt of so many new words be read; return its tokens and the seconds until the first one came."""
        prompt, began = self._prompt(words), time.perf_counter()
        document = self._ask(prompt, 1).json()
        seconds = time.perf_counter() - began
        return int(document["usage"]["prompt_tokens"]), seconds

    def decode(self, tokens: int) -> tuple[int, float]:
        """Let so many tokens be generated; return how many came after the first, and in how many seconds."""
        times: list[float] = []
        count = 0
        with closing(self._ask(self._prompt(WARM_UP_WORDS), tokens, stream=True)) as response:
            for data in event_data(response_lines(response)):
                if self._stop.is_set():
                    raise StoppedError
                if data == "[DONE]":
                    break
                chunk: dict[str, Any] = json.loads(data)
                if chunk.get("choices") and chunk["choices"][0].get("text"):
                    times.append(time.perf_counter())
                count = (chunk.get("usage") or {}).get("completion_tokens", count)
        if len(times) < 2:  # noqa: PLR2004  a span has two ends
            raise NoAnswerError("the answer had no two pieces")
        return (count or len(times)) - 1, times[-1] - times[0]

    def _prompt(self, words: int) -> str:
        return " ".join(self._random.choice(_WORDS) for _ in range(words))

    def _ask(self, prompt: str, tokens: int, *, stream: bool = False) -> requests.Response:
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self._stop.is_set():
            raise StoppedError
        response = self._client.post(
            f"{self._url}/v1/completions", json=body, stream=stream, timeout=(5.0, SILENT_SECONDS)
        )
        if response.status_code != HTTPStatus.OK:
            raise NoAnswerError(error_message(response))
        return response


def measure_inference(asker: Asker, where: str, say: Say, stop: threading.Event) -> Measured:
    """Return tokens a second of prompts and of answers; raises StoppedError."""
    try:
        return _measure(asker, where, say)
    except (requests.RequestException, NoAnswerError, ValueError, LookupError, TypeError) as error:
        if stop.is_set():
            raise StoppedError from error
        return [Missing("inference", f"{where}: {error}", "r3mes status")]


def _measure(asker: Asker, where: str, say: Say) -> Measured:
    say("inference", 0, 2 * ROUNDS)
    asker.prefill(WARM_UP_WORDS)
    tokens, seconds = asker.prefill(WARM_UP_WORDS)
    words = bounded(PREFILL_SECONDS * tokens / max(seconds, 1e-6), PREFILL_TOKENS)
    tokens, seconds = asker.decode(WARM_UP_TOKENS)
    length = bounded(DECODE_SECONDS * tokens / max(seconds, 1e-6), DECODE_TOKENS)
    prefills, decodes, read = [], [], 0
    for number in range(ROUNDS):
        read, seconds = asker.prefill(words)
        prefills.append(read / seconds)
        say("inference", 2 * number + 1, 2 * ROUNDS)
        tokens, seconds = asker.decode(length)
        decodes.append(tokens / max(seconds, 1e-6))
        say("inference", 2 * number + 2, 2 * ROUNDS)
    warm_up = "warm-up: two short prompts and a short answer"
    return [
        Figure("prefill", "tokens/s", tuple(prefills), f"{where}; {read} tokens of prompt, HTTP counted; {warm_up}"),
        Figure("decode", "tokens/s", tuple(decodes), f"{where}; {length} tokens to one client; {warm_up}"),
    ]


def bounded(wanted: float, bounds: tuple[int, int]) -> int:
    """Return a number of tokens within its bounds."""
    least, most = bounds
    return max(least, min(most, int(wanted)))
