"""Server-sent events: the present status at once, then each change, and a comment when nothing changes.

A client that reads slowly misses intermediate states, never the last one; nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator

from services.downloader.board import Board, Entry

KEEP_ALIVE_SECONDS = 15.0
_STOP_CHECK_SECONDS = 1.0


def format_event(entry: Entry) -> str:
    """Return one event `status` whose data is the status document."""
    return f"id: {entry.change}\nevent: status\ndata: {json.dumps(entry.status.to_json())}\n\n"


async def status_events(board: Board, digest: str | None, stop: threading.Event) -> AsyncIterator[str]:
    """Yield the events of one model, or of all when `digest` is None, until `stop` is set."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def ring() -> None:
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # the loop has ended, and with it this client
            return

    board.add_bell(ring)
    try:
        seen = 0
        quiet_since = loop.time()
        while not stop.is_set():
            changed.clear()
            fresh = [e for e in board.entries() if e.change > seen and digest in {None, e.status.sha256}]
            for entry in fresh:
                yield format_event(entry)
            if fresh:
                seen, quiet_since = max(entry.change for entry in fresh), loop.time()
            elif loop.time() - quiet_since >= KEEP_ALIVE_SECONDS:
                quiet_since = loop.time()
                yield ": nothing new\n\n"
            try:
                await asyncio.wait_for(changed.wait(), _STOP_CHECK_SECONDS)
            except TimeoutError:
                continue
    finally:
        board.remove_bell(ring)
