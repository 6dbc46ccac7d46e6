"""`control.json` of each model: read from disk, changed under one lock, written through.

A disk that is too full for a document of a kilobyte must not lose an operator's word: what could not be written is kept
in memory, counts at once, and is written as soon as there is room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from services.downloader.transfer.incoming import prepare_directory
from shared.store.layout import StoreLayout
from shared.store.records import Control

log = structlog.get_logger(__name__)


class Controls:
    """The control documents of this store; safe to use from any thread."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._unwritten: dict[str, Control] = {}

    def read(self, digest: str) -> Control:
        """Return what is in force for `digest`."""
        with self._lock:
            return self._read(digest)

    def update(self, digest: str, change: Callable[[Control], Control]) -> Control:
        """Replace the document by `change` of it, and return that."""
        with self._lock:
            before = self._read(digest)
            after = change(before)
            if after != before:
                self._write(digest, after)
            return after

    def flush(self) -> None:
        """Write what could not be written before."""
        with self._lock:
            for digest, control in tuple(self._unwritten.items()):
                self._write(digest, control)

    def _read(self, digest: str) -> Control:
        return self._unwritten.get(digest) or Control.read(self._layout.control(digest)) or Control()

    def _write(self, digest: str, control: Control) -> None:
        try:
            prepare_directory(self._layout, digest)
            control.write(self._layout.control(digest))
        except OSError as error:
            if digest not in self._unwritten:
                log.warning("cannot write control.json, keeping it in memory", sha256=digest, error=str(error))
            self._unwritten[digest] = control
        else:
            self._unwritten.pop(digest, None)
