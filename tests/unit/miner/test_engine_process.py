"""An engine ends within its time, whatever it does with what it was sent."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import pytest

from services.miner.engine import process
from services.miner.engine.flight import new_memory
from services.miner.engine.messages import Submit
from services.miner.engine.process import EngineProcess

DEAF = "import signal, sys; sys.stdout.write('.'); sys.stdout.flush(); signal.pause()"
MORE_THAN_A_SOCKET_HOLDS = Submit("a", tuple(range(1_000_000)), 4)


async def deaf_engine() -> EngineProcess:
    """One that holds its end of the channel and never reads it."""
    ours, theirs = socket.socketpair()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DEAF, pass_fds=(theirs.fileno(),), stdout=asyncio.subprocess.PIPE
        )
    assert child.stdout is not None
    await child.stdout.read(1)
    reader, writer = await asyncio.open_connection(sock=ours)
    return EngineProcess(child, reader, writer, new_memory())


def test_an_engine_that_stands_still_with_unread_messages_is_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)

    async def run() -> None:
        engine = await deaf_engine()
        engine.send(MORE_THAN_A_SOCKET_HOLDS)
        try:
            async with asyncio.timeout(10):
                receiving = asyncio.create_task(engine.receive())
                assert await engine.stop() == -signal.SIGKILL
                assert await receiving is None
        finally:
            engine.kill()

    asyncio.run(run())
