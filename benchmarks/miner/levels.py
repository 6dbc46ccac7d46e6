"""What is measured: closed loops of clients, a cold burst on one new system prompt, and a long prompt that arrives.

In a closed loop each client sends its next request when its last one is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.miner.client import Client, Reply
from benchmarks.miner.prompts import Prompts

SHARED_TOKENS = 1_500
STALL_STREAMS = 4
STALL_STREAM_TOKENS = 1_500  # more than is generated while the long prompts arrive
STALL_PROMPT_TOKENS = 2_000  # with its answer below 2,048: llama-server gives each of 16 slots so much of 32,768
STALL_ANSWER_TOKENS = 16
STALL_ARRIVALS = 3
STEADY_PIECES = 8  # each stream has given so many before the long prompt comes
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Level:
    """One shape of load; every prompt begins with the same `shared` tokens and goes on with its own `prompt` tokens."""

    name: str
    clients: int
    requests: int  # of each client
    prompt: int = 75
    answer: int = 64
    shared: int = 0
    is_stall: bool = False


LEVELS = (
    Level("1", 1, 12),
    Level("4", 4, 6),
    Level("16", 16, 4),
    Level("prompts", 4, 4, prompt=512, answer=16),
    Level("shared", 16, 2, shared=SHARED_TOKENS),  # llama-server takes ten minutes for more
    Level("burst", 16, 1, shared=SHARED_TOKENS),
    Level("stall", STALL_STREAMS, STALL_ARRIVALS, is_stall=True),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one level gave on one server in one round. Seconds; `gap` is None but for a stall."""

    tokens_per_second: float
    first_token: float  # median; of a stall: of the long prompts
    gap: float | None
    tokens: int
    pieces: int
    client_cpu: float  # share of one core that this process took


async def measure(client: Client, level: Level, prompts: Prompts) -> Figures:
    """Put the load on, and return its figures."""
    begun, cpu = time.perf_counter(), time.process_time()
    gap = None
    if level.is_stall:
        streams, replies = await _stall(client, level, prompts)
        gap = percentile(stalled_gaps(streams, replies), 0.99)
        counted = [*streams, *replies]
    else:
        replies = counted = await _closed_loop(client, level, prompts)
    wall = max(reply.arrivals[-1] for reply in counted) - min(reply.sent for reply in counted)
    tokens = sum(reply.tokens for reply in counted)
    return Figures(
        tokens_per_second=tokens / wall,
        first_token=statistics.median(reply.first_token for reply in replies),
        gap=gap,
        tokens=tokens,
        pieces=sum(len(reply.arrivals) for reply in counted),
        client_cpu=(time.process_time() - cpu) / (time.perf_counter() - begun),
    )


async def _closed_loop(client: Client, level: Level, prompts: Prompts) -> list[Reply]:
    shared = prompts.draw(level.shared)
    drawn = [[shared + prompts.draw(level.prompt) for _ in range(level.requests)] for _ in range(level.clients)]

    async def one_client(texts: Sequence[str]) -> list[Reply]:
        return [await client.ask(text, level.shared + level.prompt, level.answer) for text in texts]

    return [reply for replies in await asyncio.gather(*map(one_client, drawn)) for reply in replies]


async def _stall(client: Client, level: Level, prompts: Prompts) -> tuple[list[Reply], list[Reply]]:
    """Return the streams, broken off in the end, and the replies to the long prompts that came one after the other."""
    streams = [Reply(0.0) for _ in range(level.clients)]
    tasks = [
        asyncio.create_task(client.ask(prompts.draw(level.prompt), level.prompt, STALL_STREAM_TOKENS, stream))
        for stream in streams
    ]
    replies = []
    try:
        for _ in range(level.requests):
            await _steady(streams, tasks)
            text = prompts.draw(STALL_PROMPT_TOKENS)
            replies.append(await client.ask(text, STALL_PROMPT_TOKENS, STALL_ANSWER_TOKENS))
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
    return streams, replies


async def _steady(streams: Sequence[Reply], tasks: Iterable[asyncio.Task[Reply]]) -> None:
    """Wait until every stream has given some pieces more. Raises RuntimeError when one has ended."""
    wanted = [len(stream.arrivals) + STEADY_PIECES for stream in streams]
    while any(len(stream.arrivals) < count for stream, count in zip(streams, wanted, strict=True)):
        if any(task.done() for task in tasks):
            raise RuntimeError("a stream ended before the long prompts were answered")
        await asyncio.sleep(LOOK_SECONDS)


def stalled_gaps(streams: Iterable[Reply], arrivals: Sequence[Reply]) -> list[float]:
    """Return the seconds of each wait of a stream that touches the time from a long prompt's arrival to its answer."""
    windows = [(reply.sent, reply.arrivals[0]) for reply in arrivals]
    return [
        end - start
        for stream in streams
        for start, end in stream.gaps
        if any(start < until and end > since for since, until in windows)
    ]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least `share` of all are not above (nearest rank)."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]
