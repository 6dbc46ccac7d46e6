"""The one client that all servers are asked by: a streamed `/v1/completions`, and when each piece of it came."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import httpx2

READ_SECONDS = 900.0  # a server that answers one request at a time lets the sixteenth wait for minutes
END_MARK = "[DONE]"
# Named, so that every server samples with the same work, whatever its defaults are.
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


class WrongAnswerError(Exception):
    """A server answered something that cannot be counted."""


@dataclass(slots=True)
class Reply:
    """One streamed answer; moments are seconds of `time.perf_counter`. `usage` is None where a server tells none."""

    sent: float
    arrivals: list[float] = field(default_factory=list)  # of pieces with text
    prompt_tokens: int | None = None
    usage: int | None = None

    @property
    def tokens(self) -> int:
        """How many tokens were generated: as the server says, else how many pieces came."""
        return len(self.arrivals) if self.usage is None else self.usage

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first text."""
        return self.arrivals[0] - self.sent

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Start and end of each wait between two pieces."""
        return list(pairwise(self.arrivals))


class Client:
    """Asks one server. Use with `async with`."""

    def __init__(self, url: str, model: str) -> None:
        self._url = f"{url}/v1/completions"
        self._model = model
        # A connection for each request: llama-server now and then closes one that a next request is on its way on.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx2.AsyncClient(timeout=httpx2.Timeout(READ_SECONDS), limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, prompt: str, prompt_tokens: int, answer_tokens: int, reply: Reply | None = None) -> Reply:
        """Stream one answer to its end; `reply`, if given, is filled while it comes.

        Raises WrongAnswerError when the server refuses, or counts other tokens in the prompt than we do.
        """
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": answer_tokens,
            "ignore_eos": True,  # llama_cpp.server knows no such field: its answers may end early
            "stream": True,
            "stream_options": {"include_usage": True},
            **SAMPLING,
        }
        reply = reply or Reply(0.0)
        reply.sent = time.perf_counter()
        async with self._http.stream("POST", self._url, json=body) as response:
            if response.status_code != httpx2.codes.OK:
                raise WrongAnswerError(f"{response.status_code}: {(await response.aread()).decode(errors='replace')}")
            async for event in httpx2.EventSource(response):
                if event.data != END_MARK:
                    take(event.data, reply, time.perf_counter())
        if reply.prompt_tokens not in {None, prompt_tokens}:
            raise WrongAnswerError(f"{reply.prompt_tokens} tokens in a prompt of {prompt_tokens}")
        if not reply.arrivals:
            raise WrongAnswerError("an answer without text")
        return reply


def take(data: str, reply: Reply, now: float) -> None:
    """Note what one event brought. Raises WrongAnswerError for an error that came within a stream."""
    chunk = json.loads(data)
    if "error" in chunk:
        raise WrongAnswerError(data)
    if any(choice.get("text") for choice in chunk.get("choices", ())):
        reply.arrivals.append(now)
    if usage := chunk.get("usage"):
        reply.prompt_tokens, reply.usage = usage["prompt_tokens"], usage["completion_tokens"]
