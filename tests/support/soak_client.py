"""A client of a soak: sends one request, leaves when it should, judges the answer, and says how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.soak_requests import CHAT, Ask

OK, LEFT = "ok", "left"
# As the miner counts them; whoever left is counted as `cancelled`, or as what the answer was in that moment.
OUTCOMES = {400: "invalid", 404: "invalid", 422: "invalid", 429: "busy", 503: "unavailable", 504: "timeout"}
CODES = {"request_crashes_engine": 422, "service_unavailable": 503, "timeout": 504}
SENT = "http11.send_request_body.complete"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended: `ok`, `left`, or the status of its refusal; `within` the stream if it had begun."""

    ask: Ask
    status: int
    left: bool
    within: bool
    seconds: float

    @property
    def outcome(self) -> str:
        return LEFT if self.left else OK if self.status == 200 else OUTCOMES[self.status]


async def send(client: httpx2.AsyncClient, ask: Ask, stuck_seconds: float) -> Ending:
    """Send it and wait for its end; raises AssertionError for a wrong answer and for none within `stuck_seconds`."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(stuck_seconds):
            status, within, left = await _until_it_leaves(client, ask)
    except TimeoutError as error:
        raise AssertionError(f"stuck for {stuck_seconds:g} s: {describe(ask)}") from error
    return Ending(ask, status, left, within, time.monotonic() - started)


def describe(ask: Ask) -> str:
    """Say what was asked, shortly."""
    return f"{ask.kind} {ask.path} {ask.content[:600]!r}"


async def _until_it_leaves(client: httpx2.AsyncClient, ask: Ask) -> tuple[int, bool, bool]:
    leaving = asyncio.timeout(None)

    async def trace(event: str, _info: Mapping[str, Any]) -> None:
        # From the moment in which the request is counted whatever happens: it is on its way as a whole.
        if event == SENT and ask.leave_seconds is not None:
            leaving.reschedule(asyncio.get_running_loop().time() + ask.leave_seconds)

    try:
        async with leaving:
            return await _exchange(client, ask, {"trace": trace})
    except TimeoutError:
        if not leaving.expired():
            raise
        return 0, False, True


async def _exchange(client: httpx2.AsyncClient, ask: Ask, extensions: dict[str, Any]) -> tuple[int, bool, bool]:
    headers = {"Content-Type": "application/json"}
    async with client.stream("POST", ask.path, content=ask.content, headers=headers, extensions=extensions) as response:
        if response.status_code != 200 or not ask.stream:
            document = json.loads(await response.aread())
            _judge(ask, response.status_code, [document])
            return response.status_code, False, False
        seen = []
        async for event in _events(response):
            seen.append(event)
            if ask.leave_events is not None and len(seen) >= ask.leave_events:
                return 200, True, True
        error = seen[-1].get("error")
        if error is not None:
            assert error["code"] in CODES, (describe(ask), error)
            return CODES[error["code"]], True, False
        _judge(ask, 200, seen)
        return 200, True, False


async def _events(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each event; the end mark must come, and last."""
    ended = False
    async for line in response.aiter_lines():
        assert not ended or not line, f"after the end mark: {line}"
        ended = ended or line == "data: [DONE]"
        if line and not ended:
            assert line.startswith("data: "), line
            yield json.loads(line.removeprefix("data: "))
    assert ended, "the stream has no end mark"


def _judge(ask: Ask, status: int, documents: list[dict[str, Any]]) -> None:
    if status != 200:
        assert status in OUTCOMES, (status, documents, describe(ask))
        assert documents[0]["error"]["message"], describe(ask)
        return
    texts, finishes = ["" for _ in range(ask.choices)], [None for _ in range(ask.choices)]
    for document in documents:
        for choice in document["choices"]:
            index = choice["index"]
            assert finishes[index] is None, ("more after its end", describe(ask))
            texts[index] += _text(ask, choice)
            finishes[index] = choice["finish_reason"]
    for text, finish in zip(texts, finishes, strict=True):
        assert finish in ("stop", "length"), (finish, describe(ask))
        assert ask.check(text, finish), (text, finish, describe(ask))


def _text(ask: Ask, choice: dict[str, Any]) -> str:
    if ask.path != CHAT:
        return str(choice["text"])
    return str((choice["delta"] if ask.stream else choice["message"]).get("content", ""))
