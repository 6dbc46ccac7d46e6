"""The API process's end of the engine: start it, speak with it, end it.

It must be started from a thread that lives as long as the process (here: the event loop's), because the kernel kills
the engine when that thread is gone. Order: `start` → `send`/`receive` → `stop`; `receive` returns None once it is gone,
and after `stop` `flight` says what it died for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Self

from services.miner.engine.channel import LENGTH, MAX_FRAME_BYTES, frame
from services.miner.engine.flight import Flight, Work, new_memory, read_flight
from services.miner.engine.messages import FROM_ENGINE, TO_ENGINE, FromEngine, ToEngine

STOP_SECONDS = 3.0  # from the closed channel to SIGKILL


class EngineProcess:
    """One running engine process and the channel to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        memory: int,
    ) -> None:
        self.flight = Flight(Work.LOADING)
        self._memory: int | None = memory
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, descriptor: int, log_level: str) -> Self:
        """Start an engine that inherits `descriptor` (the checked model) under the same number; raises OSError."""
        memory = new_memory()
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                arguments = (str(theirs.fileno()), str(memory), str(os.getpid()), log_level)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "services.miner.engine", *arguments),
                    pass_fds=(theirs.fileno(), memory, descriptor),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    # The order in which the driver lists GPUs, so that shares and memory are of the same device.
                    env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ},
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            os.close(memory)
            raise
        return cls(process, reader, writer, memory)

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Send one message without waiting; to an engine that is gone it is lost, and `receive` says so."""
        self._writer.write(frame(TO_ENGINE.dump_json(message)))

    async def receive(self) -> FromEngine | None:
        """Wait for the next message; None when the engine is gone or does not speak the protocol."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > MAX_FRAME_BYTES:
                return None
            return FROM_ENGINE.validate_json(await self._reader.readexactly(length))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return None

    def kill(self) -> None:
        """End it at once, even one that is stopped or stuck."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> int:
        """Close the channel, wait a little, kill; return the exit code (negative: the signal)."""
        code = await self._ended()
        if self._memory is not None:
            memory, self._memory = self._memory, None
            with contextlib.closing(os.fdopen(memory, "rb")), contextlib.suppress(ValueError):
                self.flight = read_flight(memory)
        return code

    async def _ended(self) -> int:
        self._writer.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        self._writer.transport.abort()  # without it, what nobody has read keeps the channel open
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        return code
