"""Who carries an API key: the same rule for the miner's `/v1` and the downloader's changes, and keys that change."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from shared.settings import can_be_sent, split_secret

LOOK_SECONDS = 1.0  # how soon a changed file counts

_log = structlog.get_logger("api-keys")


def is_authorised(header: str | None, keys: Sequence[str]) -> bool:
    """Tell whether an `Authorization` header carries one of `keys`; with no keys everybody is authorised.

    Every key is compared, so that the time tells nothing of which one nearly fits.
    """
    if not keys:
        return True
    scheme, _, given = (header or "").partition(" ")
    offered = given.strip().encode("utf-8", errors="replace")
    matches = [hmac.compare_digest(offered, key.encode()) for key in keys]
    return any(matches) and scheme.lower() == "bearer"


class KeyRing:
    """The keys that count now. Those of a `file` are read again, so that they can be changed without a restart.

    A file that is gone, cannot be read, or holds no key or one that nobody can send, changes nothing: the last keys
    stay, and the API never opens.
    """

    def __init__(
        self, keys: tuple[str, ...], file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._file = file
        self._clock = clock
        self._looked_at = clock()
        self._refused: tuple[str, ...] = ()

    def authorises(self, header: str | None) -> bool:
        """Tell whether an `Authorization` header carries one of them."""
        return is_authorised(header, self._present())

    def first(self) -> str | None:
        """Return the key that is sent where this node asks itself; None where no key is asked for."""
        return next(iter(self._present()), None)

    def _present(self) -> tuple[str, ...]:
        if self._file is not None and self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            self._look(self._file)
        return self._keys

    def _look(self, file: Path) -> None:
        try:
            found = split_secret(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return
        if not found or found in {self._keys, self._refused}:
            return
        unsendable = [number for number, key in enumerate(found, 1) if not can_be_sent(key)]
        if unsendable:
            self._refused = found
            _log.error("the API keys stay as they were: no header carries some new ones", numbers=unsendable)
            return
        _log.info("the API keys changed", count=len(found))
        self._keys = found
