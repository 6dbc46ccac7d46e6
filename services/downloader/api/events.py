"""Server-sent events: the present state at once, then each change, and a comment when nothing changes.

A client that reads slowly misses intermediate states, never the last one; nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from services.downloader.board import Board, Entry
from services.downloader.bulletin import Bulletin

KEEP_ALIVE_SECONDS = 15.0
_STOP_CHECK_SECONDS = 1.0


def format_event(entry: Entry) -> str:
    """Return one event `status` whose data is the status document."""
    return f"id: {entry.change}\nevent: status\ndata: {json.dumps(entry.status.to_json())}\n\n"


async def status_events(
    board: Board, digest: str | None, stop: threading.Event, bulletins: Sequence[Bulletin] = ()
) -> AsyncIterator[str]:
    """Yield the events of one model, or of all when `digest` is None, and of `bulletins`, until `stop` is set."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def ring() -> None:
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # the loop has ended, and with it this client
            return

    news = _News(board, digest, bulletins)
    with _bell(ring, board, *bulletins):
        quiet_since = loop.time()
        while not stop.is_set():
            changed.clear()
            for event in news.fresh():
                quiet_since = loop.time()
                yield event
            if loop.time() - quiet_since >= KEEP_ALIVE_SECONDS:
                quiet_since = loop.time()
                yield ": nothing new\n\n"
            try:
                await asyncio.wait_for(changed.wait(), _STOP_CHECK_SECONDS)
            except TimeoutError:
                continue


class _News:
    """What one client has not been told yet."""

    def __init__(self, board: Board, digest: str | None, bulletins: Sequence[Bulletin]) -> None:
        self._board = board
        self._digest = digest
        self._seen = 0
        self._seen_bulletins = dict.fromkeys(bulletins, 0)

    def fresh(self) -> Iterator[str]:
        entries = [entry for entry in self._board.entries() if entry.change > self._seen]
        for entry in entries:
            if self._digest in {None, entry.status.sha256}:
                yield format_event(entry)
            self._seen = max(self._seen, entry.change)
        for bulletin, seen in tuple(self._seen_bulletins.items()):
            change, document = bulletin.latest()
            if change > seen:
                yield f"event: {bulletin.event}\ndata: {json.dumps(document)}\n\n"
                self._seen_bulletins[bulletin] = change


@contextmanager
def _bell(ring: Callable[[], None], *rung_by: Board | Bulletin) -> Iterator[None]:
    for source in rung_by:
        source.add_bell(ring)
    try:
        yield
    finally:
        for source in rung_by:
            source.remove_bell(ring)
