"""News that are no model's: the latest of one document, and the thread that keeps it fresh."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from services.downloader.bells import Bells


class Bulletin(Bells):
    """The latest document of the event `event`; None until there is one. Written and read from any thread."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self.event = event
        self._lock = threading.Lock()
        self._latest: tuple[int, Any] = (0, None)

    def show(self, document: Any) -> None:  # noqa: ANN401 - any JSON
        """Replace the document; what is equal is no change."""
        with self._lock:
            change, before = self._latest
            if change and before == document:
                return
            self._latest = (change + 1, document)
        self.ring()

    def latest(self) -> tuple[int, Any]:
        """Return the number of its last change, 0 before the first, and the document, which nobody changes."""
        with self._lock:
            return self._latest


def keep_fresh(
    bulletin: Bulletin,
    look: Callable[[], Any],
    seconds: float,
    stop: threading.Event,
    on_crash: Callable[[BaseException], None],
) -> None:
    """Start a thread that shows what `look` returns, and again `seconds` after each time, until `stop` is set."""

    def run() -> None:
        try:
            while not stop.is_set():
                bulletin.show(look())
                stop.wait(seconds)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread: the process ends with it
            if not stop.is_set():  # a process that ends takes no more work
                on_crash(error)

    threading.Thread(target=run, name=f"{bulletin.event}-watch", daemon=True).start()
