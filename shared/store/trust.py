"""What is pinned: `trust/genesis.json`, which each process parses by itself, and which `accepted.json` must agree with.

Nothing here writes. A pair that disagrees (a crash between the two writes) is not accepted: a start refuses it, who
runs keeps what it has. A chain's genesis may have 256 MiB: it is read through a window, never as a whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from shared.errors import GenesisError, StoreError
from shared.genesis import MAX_GENESIS_BYTES, Genesis, parse_genesis_stream
from shared.store.atomic import open_regular
from shared.store.layout import StoreLayout
from shared.store.records import AcceptedDocument

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
    accepted = AcceptedDocument.read(layout.accepted)
    if accepted is None:
        raise _nothing_accepted(layout)
    digest = genesis_digest(layout.genesis)
    if digest is None:
        raise _nothing_accepted(layout)
    if digest != accepted.sha256:
        raise _disagreeing(layout)
    genesis = read_accepted_file(layout.genesis)
    if genesis is None or genesis.sha256 != accepted.sha256:
        raise _disagreeing(layout)  # replaced between the two readings
    return Trust(genesis, _read_staged(layout))


def genesis_digest(path: Path) -> str | None:
    """Return the SHA-256 (hex) of a genesis in `trust/`; None: absent, unreadable, too large, no regular file."""
    try:
        with open_regular(path) as file:
            if file is None or os.fstat(file.fileno()).st_size > MAX_GENESIS_BYTES:
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def read_accepted_file(path: Path) -> Genesis | None:
    """Parse a genesis in `trust/`; None: absent, unreadable, no regular file. Raises GenesisError."""
    try:
        with open_regular(path) as file:
            return parse_genesis_stream(file, file=str(path)) if file else None
    except OSError:
        return None


def _read_staged(layout: StoreLayout) -> Genesis | None:
    try:
        return read_accepted_file(layout.next_genesis)
    except GenesisError:
        return None


def _nothing_accepted(layout: StoreLayout) -> StoreError:
    return StoreError(f"no genesis is accepted in {layout.trust}", next_step=_ACCEPT)


def _disagreeing(layout: StoreLayout) -> DisagreeingTrustError:
    return DisagreeingTrustError(
        f"{layout.genesis} is not what {layout.accepted.name} says was accepted", next_step=_ACCEPT
    )


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
        except StoreError:
            return None  # half replaced: keep what runs, look again next time
        except GenesisError:
            self._seen = identity  # these bytes stay wrong: keep what runs, look again when they are others
            return None
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
