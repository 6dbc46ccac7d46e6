"""What lies in `trust/`, and the only writes to it. Readers elsewhere use `shared.store.trust`."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.acceptance.decision import TrustDigests
from shared.acceptance.genesis_file import GenesisFile, find_genesis
from shared.errors import GenesisError, StoreError
from shared.genesis import Genesis
from shared.store.atomic import fsync_dir, replace_chunks, sweep_temporaries
from shared.store.layout import TRUST_FILE_MODE, StoreLayout
from shared.store.records import AcceptedDocument
from shared.store.trust import genesis_digest


@dataclass(frozen=True, slots=True)
class TrustState:
    """Digests for the decision; `genesis.json`, open, if it can be used; the signature that was recorded."""

    digests: TrustDigests
    file: GenesisFile | None
    signature: str | None

    @property
    def genesis(self) -> Genesis | None:
        """What `genesis.json` says, None where it cannot be used or its bytes do not parse."""
        try:
            return self.file.genesis if self.file else None
        except GenesisError:
            return None


def read_trust_state(layout: StoreLayout) -> TrustState:
    """Read and hash `trust/`; what is not there or cannot be used is None, and nothing raises for its content."""
    document = AcceptedDocument.read(layout.accepted)
    file = find_genesis(layout.genesis)
    digests = TrustDigests(
        genesis=file.sha256 if file else None,
        accepted=document.sha256 if document else None,
        staged=genesis_digest(layout.next_genesis),
        # By name: a file that cannot be read is not a file that was never written.
        empty=not os.path.lexists(layout.genesis) and not os.path.lexists(layout.accepted),
        store_in_use=os.path.lexists(layout.store_json),
    )
    return TrustState(digests, file, document.signature if document else None)


def recorded_digest(layout: StoreLayout) -> str | None:
    """Return the digest that `accepted.json` names, whatever lies beside it; None where there is no such file."""
    document = AcceptedDocument.read(layout.accepted)
    return document.sha256 if document else None


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


def write_accepted(layout: StoreLayout, file: GenesisFile, signature: str | None) -> None:
    """Replace `genesis.json`, then `accepted.json`; under the lock.

    Raises OSError; ConfigurationError or GenesisError, with nothing replaced, when the file's bytes are others by now.
    """
    replace_chunks(layout.genesis, file.chunks(), mode=TRUST_FILE_MODE)
    write_acceptance(layout, file.sha256, signature)


def write_acceptance(layout: StoreLayout, sha256: str, signature: str | None) -> None:
    """Replace `accepted.json` alone, for a `genesis.json` that is already there. Raises OSError."""
    AcceptedDocument(sha256=sha256, accepted_at=time.time(), signature=signature).write(layout.accepted)


def write_staged(layout: StoreLayout, content: Iterable[bytes]) -> None:
    """Replace `next.json` by what comes in pieces; under the lock. Raises OSError, and what `content` raises."""
    replace_chunks(layout.next_genesis, content, mode=TRUST_FILE_MODE)


def remove_staged(layout: StoreLayout) -> None:
    """Remove `next.json` where there is one; under the lock. Raises OSError."""
    if os.path.lexists(layout.next_genesis):
        layout.next_genesis.unlink()
        fsync_dir(layout.trust)
