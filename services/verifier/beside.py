"""Writing what is hashed: in turn, or in a thread beside, which writes a buffer while its owner hashes that very one.

Both only read the buffer, so there is one, and nothing is read ahead that would have to be thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

Write = Callable[[memoryview, int], None]
"""Writes a buffer at its offset."""


class WriteInTurn:
    """Writes each buffer before it is hashed: for pieces that are not worth a thread."""

    def __init__(self, write: Write) -> None:
        self.begin = write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def end(self) -> None:
        """It is written already."""


class WriteBeside:
    """Runs `write` in a thread of its own, one buffer at a time, as long as the `with` block lasts.

    `begin` ▸ `end` for each buffer, which stays as it is in between. What the write raises, `end` raises. When the
    block is left, nothing is being written any more.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._writing = Future[None]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def begin(self, buffer: memoryview, offset: int) -> None:
        """Let the thread write this buffer."""
        self._writing = self._thread.submit(self._write, buffer, offset)

    def end(self) -> None:
        """Wait until it is written; raises what its writing raised."""
        self._writing.result()


Writing = WriteInTurn | WriteBeside
