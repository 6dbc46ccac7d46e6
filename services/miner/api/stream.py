"""Server-sent events: one chunk an output, usage where it was asked for, an error as an event, then the end mark."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.miner.api.choices import Choice
from services.miner.api.errors import ApiError
from services.miner.api.running import Running

Chunk = dict[str, object]
END_MARK = b"data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """Streams one request, and ends it whatever becomes of the client, even one that left before the first byte."""

    def __init__(self, running: Running, events: AsyncIterator[bytes]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", **running.headers}
        )
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.end()


def event(chunk: Chunk) -> bytes:
    """Return one event."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def events(
    running: Running,
    choices: AsyncIterator[Choice],
    *,
    opening: list[Chunk],
    chunk: Callable[[Choice], Chunk],
    usage: Callable[[], Chunk] | None,
) -> AsyncIterator[bytes]:
    """Yield the events of one request; an output with nothing to tell makes none."""
    try:
        for first in opening:
            yield event(first)
        async for choice in choices:
            output = choice.output
            if output.text or output.logprobs or choice.calls or output.finish is not None:
                yield event(chunk(choice))
        if usage is not None:
            yield event(usage())
    except ApiError as error:
        yield event(error.body())
    yield END_MARK
    running.end()


async def first_of(choices: AsyncIterator[Choice]) -> AsyncIterator[Choice]:
    """Wait for the first output, so that a request that fails before it gets a status; return all of them again."""
    first = await anext(choices, None)

    async def again() -> AsyncIterator[Choice]:
        if first is not None:
            yield first
            async for choice in choices:
                yield choice

    return again()
