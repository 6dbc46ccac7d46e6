"""What is pinned: `trust/genesis.json`, which each process parses by itself, and which `accepted.json` must agree with.

Nothing here writes. A pair that disagrees (a crash between the two writes) is not accepted: a start refuses it, who
runs keeps what it has.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from shared.errors import GenesisError, StoreError
from shared.genesis import Genesis, parse_genesis
from shared.store.atomic import read_hostile_bytes
from shared.store.layout import StoreLayout
from shared.store.records import AcceptedDocument

MAX_GENESIS_BYTES = 256 * 1024 * 1024
_ACCEPT = (
    "run `r3mes genesis accept` (in a container stack: docker compose run --rm --no-deps init r3mes genesis accept)"
)

# An acceptance writes two files; a start that falls between them waits so long for the second.
ACCEPTANCE_SECONDS = 2.0
_POLL_SECONDS = 0.02


class DisagreeingTrustError(StoreError):
    """The pair in `trust/` disagrees: a crash between its two writes, or an acceptance that is at it now."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The accepted genesis and, if one is staged, the next one."""

    genesis: Genesis
    staged: Genesis | None = None

    @property
    def digests(self) -> frozenset[str]:
        """Every digest that may stand in the store."""
        staged = self.staged.models if self.staged else ()
        return frozenset(pin.sha256 for pin in (*self.genesis.models, *staged))


def read_trust(layout: StoreLayout) -> Trust:
    """Return what is accepted and staged.

    Raises StoreError when nothing is accepted or the pair disagrees, GenesisError when the accepted bytes do not parse.
    A staged genesis that does not parse counts as none.
    """
    raw = read_hostile_bytes(layout.genesis, limit=MAX_GENESIS_BYTES)
    accepted = AcceptedDocument.read(layout.accepted)
    if raw is None or accepted is None:
        raise StoreError(f"no genesis is accepted in {layout.trust}", next_step=_ACCEPT)
    if hashlib.sha256(raw).hexdigest() != accepted.sha256:
        raise DisagreeingTrustError(
            f"{layout.genesis} is not what {layout.accepted.name} says was accepted", next_step=_ACCEPT
        )
    return Trust(parse_genesis(raw, file=str(layout.genesis)), _read_staged(layout))


def _read_staged(layout: StoreLayout) -> Genesis | None:
    raw = read_hostile_bytes(layout.next_genesis, limit=MAX_GENESIS_BYTES)
    if raw is None:
        return None
    try:
        return parse_genesis(raw, file=str(layout.next_genesis))
    except GenesisError:
        return None


class TrustWatch:
    """Notices a newly accepted or staged genesis without reading the files each time.

    `current` is what this process works with; `poll()` returns the new trust once it is whole and differs.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._seen = self._identity()
        self.current = self._first()

    def poll(self) -> Trust | None:
        """Return the new trust when it changed and agrees, else None; a pair that disagrees changes nothing."""
        identity = self._identity()
        if identity == self._seen:
            return None
        try:
            trust = read_trust(self._layout)
        except (StoreError, GenesisError):
            return None  # half replaced or broken: keep what runs, look again next time
        self._seen = identity
        if trust == self.current:
            return None
        self.current = trust
        return trust

    def _first(self) -> Trust:
        """Read at the start, when an acceptance may be between its two writes; raises as `read_trust` does."""
        deadline = time.monotonic() + ACCEPTANCE_SECONDS
        while True:
            try:
                return read_trust(self._layout)
            except DisagreeingTrustError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
                self._seen = self._identity()

    def _identity(self) -> tuple[tuple[int, int, int] | None, ...]:
        paths = (self._layout.genesis, self._layout.accepted, self._layout.next_genesis)
        return tuple(_stat_identity(path) for path in paths)


def _stat_identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
