"""A source of bytes, with the limits that no implementation can forget, and the ways in which one fails.

A source has one place or several (gateways); each connection of a transfer sees them through objects of its own.
Order of calls: `Supply.connect` for each connection; `preflight` once a turn, before any byte; then `fetch` for each
range. `fetch` yields exactly the bytes of the range that it announces: a short body raises, and what goes beyond is
never yielded. A chunk is good until the next one is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from services.downloader.interrupt import Interrupt
from shared.errors import IntegrityError, SourceUnavailableError
from shared.states import Source


class TransientSourceError(SourceUnavailableError):
    """It may work in a moment. `retry_after` is what the server asks for, in seconds.

    `is_too_much`: the server, or the way to it, does not want so many connections.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, is_too_much: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_too_much = is_too_much


class ExpiredLocationError(TransientSourceError):
    """The address that a redirect once gave is not valid any more: ask the first address again."""


class PermanentSourceError(SourceUnavailableError):
    """It will not work by trying again: not found, gated, refused address."""


class UpstreamMismatchError(IntegrityError):
    """What upstream offers is not what is pinned; known before any byte of it was read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source says of its file before any byte: size, SHA-256 (hex), revision; None where it says nothing."""

    size: int | None = None
    sha256: str | None = None
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes `[start, end)` of a file of `size`, which an implementation is about to read.

    `whole`: the source ignored the range and sends the whole file from 0. `chunks` may yield less or more than
    announced; the base class judges that.
    """

    start: int
    end: int
    size: int
    chunks: Iterator[bytes | memoryview]
    whole: bool = False


class ByteSource(ABC):
    """A place that has the file. `kind` stands in journal and metrics, `url` names the place for people."""

    kind: Source
    url: str

    @abstractmethod
    def preflight(self) -> Facts:
        """Ask what is there, before any byte. Raises Transient- or PermanentSourceError."""

    @abstractmethod
    def _open(self, start: int, end: int, size: int | None) -> AbstractContextManager[Body]:
        """Ask for `[start, end)` of a file of `size` (None: not known yet); raises as `fetch` does."""

    @contextmanager
    def fetch(self, start: int, end: int, size: int | None, limit: int) -> Iterator[Body]:
        """Open `[start, end)` and yield a body whose chunks are exactly the bytes that it announces.

        `limit` is the most that the file may ever have, in bytes. Raises Transient- and PermanentSourceError,
        UpstreamMismatchError (the size is not the pinned one) and InterruptedTransferError.
        """
        with self._open(start, end, size) as body:
            if body.size > limit or (size is not None and body.size != size):
                wanted = f"{size} bytes" if size is not None else f"at most {limit} bytes"
                raise UpstreamMismatchError(f"it offers {body.size} bytes, pinned are {wanted}")
            yield Body(body.start, body.end, body.size, exactly(body.chunks, body.end - body.start), body.whole)


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection's view of a source: its places, in the supply's order, and how to close what they share."""

    places: tuple[ByteSource, ...]
    close: Callable[[], None]


class Supply(ABC):
    """All places of one source in one turn. `together`: their bytes may be mixed; else each is tried by itself.

    `spread`: ranges go to all places at once; else to the best, and to the next where that fails.
    """

    places: int
    together: bool = False
    spread: bool = False
    connections: int = 1

    @abstractmethod
    def connect(self, interrupt: Interrupt) -> Connection:
        """Return a new connection, which stops when `interrupt` is told."""


def exactly(chunks: Iterator[bytes | memoryview], count: int) -> Iterator[bytes | memoryview]:
    """Yield `count` bytes from `chunks`; raises TransientSourceError when there are fewer, or more."""
    left = count
    for chunk in chunks:
        if len(chunk) > left:
            # What belongs to the range is kept; the source that sends more is not to be trusted with the next one.
            if left:
                yield chunk[:left]
            raise TransientSourceError(f"the body goes on after the {count} bytes that were asked for")
        left -= len(chunk)
        yield chunk
    if left:
        raise TransientSourceError(f"the body ended {left} bytes early")
