"""Frames on the socket pair between the API process and the engine: four bytes of length, then JSON.

The engine's side blocks and reads in a thread of its own; the API's side uses asyncio streams (`process.py`).
"""

from __future__ import annotations

import socket
import struct

from services.miner.engine.messages import FROM_ENGINE, TO_ENGINE, FromEngine, ToEngine

LENGTH = struct.Struct("!I")
MAX_FRAME_BYTES = 64 * 1024 * 1024  # a prompt of a million tokens is 7 MB


def frame(content: bytes) -> bytes:
    """Put the length before `content`; raises ValueError beyond the limit."""
    if len(content) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(content)} bytes is longer than {MAX_FRAME_BYTES}")
    return LENGTH.pack(len(content)) + content


class EngineChannel:
    """The engine's end: `receive` until None (the other side is gone), `send` whenever there is something."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> ToEngine | None:
        """Wait for the next message; None when the API process closed its end."""
        head = self._exactly(LENGTH.size)
        if head is None:
            return None
        content = self._exactly(LENGTH.unpack(head)[0])
        return None if content is None else TO_ENGINE.validate_json(content)

    def send(self, message: FromEngine) -> None:
        """Send one message; raises OSError when the API process is gone."""
        self._connection.sendall(frame(FROM_ENGINE.dump_json(message)))

    def _exactly(self, count: int) -> bytes | None:
        content = bytearray()
        while len(content) < count:
            try:
                part = self._connection.recv(min(count - len(content), 1 << 20))
            except OSError:
                return None
            if not part:
                return None
            content += part
        return bytes(content)
