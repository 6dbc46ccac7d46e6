"""From token bytes to text that may be shown. Pure.

Invariants: half a UTF-8 character is never emitted; nothing of a stop string is ever emitted, however tokens cut it;
what comes out does not depend on how the bytes were cut. Order: `push` for each piece until `stopped`, then `finish`.
"""

from __future__ import annotations

import codecs


class TextStream:
    """Decodes bytes and holds back what may still turn out to be the beginning of a stop string."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._stopped = False
        self.decoded = 0  # characters that the bytes so far make
        self.shown = 0  # characters that were returned

    @property
    def mid_character(self) -> bool:
        """The last bytes are the beginning of a character."""
        return bool(self._decoder.getstate()[0])

    @property
    def stopped(self) -> bool:
        """A stop string is complete; nothing more is shown."""
        return self._stopped

    def push(self, piece: bytes) -> str:
        """Take the bytes of one token; return what may be shown now (nothing after a stop string)."""
        return self._take(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back, once no more bytes come; an unfinished character becomes U+FFFD."""
        shown = self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        if self._stopped:
            return shown
        self.shown += len(held)
        return shown + held

    def _take(self, text: str) -> str:
        if self._stopped:
            return ""
        self._held += text
        self.decoded += len(text)
        start = self._first_stop()
        if start is not None:
            shown, self._held, self._stopped = self._held[:start], "", True
            self.shown += len(shown)
            return shown
        keep = self._possible_stop()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        self.shown += len(shown)
        return shown

    def _first_stop(self) -> int | None:
        """Where the stop string begins that is complete first; of two that end together, the longer one."""
        found = [(start + len(stop), start) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that is a beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
