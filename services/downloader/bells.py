"""Who waits for a change, and is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Bells:
    """The bells of something that changes; used from any thread."""

    def __init__(self) -> None:
        self._bells_lock = threading.Lock()
        self._bells: set[Callable[[], None]] = set()

    def add_bell(self, bell: Callable[[], None]) -> None:
        """Call `bell` (from any thread, it must not block) after each change."""
        with self._bells_lock:
            self._bells.add(bell)

    def remove_bell(self, bell: Callable[[], None]) -> None:
        """Stop calling `bell`."""
        with self._bells_lock:
            self._bells.discard(bell)

    def ring(self) -> None:
        """Tell everybody, outside of any lock."""
        with self._bells_lock:
            bells = tuple(self._bells)
        for bell in bells:
            bell()
