"""Writing what is hashed: in turn, or in a thread beside, which writes a buffer while its owner hashes that very one.

Both only read the buffer, so there is one, and nothing is read ahead that would have to be thrown away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
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
        self._orders: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._orders.put(None)
        self._thread.join()

    def begin(self, buffer: memoryview, offset: int) -> None:
        """Let the thread write this buffer."""
        self._orders.put((buffer, offset))

    def end(self) -> None:
        """Wait until it is written; raises what its writing raised."""
        error = self._answers.get()
        if error is not None:
            raise error

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._write(*order)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where it is waited for
                self._answers.put(error)
            else:
                self._answers.put(None)


Writing = WriteInTurn | WriteBeside
