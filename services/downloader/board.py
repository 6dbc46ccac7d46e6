"""What people see now: the latest status of each pinned model, and a bell that rings when one changes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.downloader.bells import Bells
from shared.states import ModelStatus


@dataclass(frozen=True, slots=True)
class Entry:
    """A status and the number of its change, which grows over all models."""

    status: ModelStatus
    change: int


class Board(Bells):
    """Written by the controller, read by API, courier and metrics from other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._order: tuple[str, ...] = ()
        self._changes = 0

    def show(self, statuses: Iterable[ModelStatus]) -> None:
        """Replace everything by `statuses`, in this order; what changes in nothing but its time is no change."""
        with self._lock:
            entries: dict[str, Entry] = {}
            for status in statuses:
                before = self._entries.get(status.sha256)
                if before is not None and replace(before.status, updated_at=status.updated_at) == status:
                    entries[status.sha256] = before
                    continue
                self._changes += 1
                entries[status.sha256] = Entry(status, self._changes)
            rings = entries != self._entries
            self._entries = entries
            self._order = tuple(entries)
        if rings:
            self.ring()

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries in the genesis's order."""
        with self._lock:
            return tuple(self._entries[digest] for digest in self._order)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return all statuses in the genesis's order."""
        return tuple(entry.status for entry in self.entries())

    def status(self, digest: str) -> ModelStatus | None:
        """Return the status of one model."""
        with self._lock:
            entry = self._entries.get(digest)
            return entry.status if entry else None
