"""What lies in `trust/`, and the only writes to it. Readers elsewhere use `shared.store.trust`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.acceptance.decision import TrustDigests
from shared.errors import GenesisError, StoreError
from shared.genesis import Genesis
from shared.store.atomic import fsync_dir, replace_bytes, sweep_temporaries
from shared.store.layout import TRUST_FILE_MODE, StoreLayout
from shared.store.records import AcceptedDocument
from shared.store.trust import genesis_digest, read_accepted_file


@dataclass(frozen=True, slots=True)
class TrustState:
    """Digests for the decision; `genesis` and `staged` as far as their bytes parse; the signature that was recorded."""

    digests: TrustDigests
    genesis: Genesis | None
    staged: Genesis | None
    signature: str | None


def read_trust_state(layout: StoreLayout) -> TrustState:
    """Read `trust/`; a file that is not there or cannot be used is None, nothing raises for its content."""
    document = AcceptedDocument.read(layout.accepted)
    digests = TrustDigests(
        genesis=genesis_digest(layout.genesis),
        accepted=document.sha256 if document else None,
        staged=genesis_digest(layout.next_genesis),
        # By name: a file that cannot be read is not a file that was never written.
        empty=not os.path.lexists(layout.genesis) and not os.path.lexists(layout.accepted),
        store_in_use=os.path.lexists(layout.store_json),
    )
    genesis, staged = _parsed(layout.genesis), _parsed(layout.next_genesis)
    return TrustState(digests, genesis, staged, document.signature if document else None)


@contextmanager
def trust_lock(layout: StoreLayout) -> Iterator[None]:
    """Hold `trust/.lock`, making it where it is not; waits for the holder, who never waits for a person.

    Raises StoreError when it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(layout.trust_lock, flags, TRUST_FILE_MODE)
    except OSError as error:
        raise StoreError(
            f"cannot lock {layout.trust_lock}: {error.strerror}", next_step="check the owner and rights of the store"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(layout: StoreLayout) -> None:
    """Remove what a killed process left behind beside the documents; under the lock. Raises OSError."""
    sweep_temporaries(layout.trust)
    sweep_temporaries(layout.root)


def write_accepted(layout: StoreLayout, raw: bytes, signature: str | None) -> None:
    """Replace `genesis.json`, then `accepted.json`; under the lock. Raises OSError."""
    replace_bytes(layout.genesis, raw, mode=TRUST_FILE_MODE)
    write_acceptance(layout, hashlib.sha256(raw).hexdigest(), signature)


def write_acceptance(layout: StoreLayout, sha256: str, signature: str | None) -> None:
    """Replace `accepted.json` alone, for a `genesis.json` that is already there. Raises OSError."""
    AcceptedDocument(sha256=sha256, accepted_at=time.time(), signature=signature).write(layout.accepted)


def write_staged(layout: StoreLayout, raw: bytes) -> None:
    """Replace `next.json`; under the lock. Raises OSError."""
    replace_bytes(layout.next_genesis, raw, mode=TRUST_FILE_MODE)


def remove_staged(layout: StoreLayout) -> None:
    """Remove `next.json` where there is one; under the lock. Raises OSError."""
    if os.path.lexists(layout.next_genesis):
        layout.next_genesis.unlink()
        fsync_dir(layout.trust)


def _parsed(path: Path) -> Genesis | None:
    try:
        return read_accepted_file(path)
    except GenesisError:
        return None
