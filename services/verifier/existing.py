"""Step 0: what is verified already, and whether it still is what its directory says.

A receipt that agrees with `fstat` is believed here; else the file is hashed again, and kept with a new receipt or
quarantined. After `settle` every `*.gguf` of the digest has the digest, or is gone.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from services.verifier.linux import rename_noreplace
from services.verifier.private_copy import OnBytes, read_through
from services.verifier.quiet_reading import hash_quietly
from services.verifier.rejected import write_rejected
from shared.states import Source
from shared.store.atomic import HOSTILE_FLAGS, open_dir
from shared.store.layout import VERIFIED_FILE_MODE, StoreLayout, is_digest
from shared.store.records import Receipt, RejectedRecord, StatIdentity
from shared.version import __version__

RECEIPT = "receipt.json"
SUFFIX = ".gguf"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a receipt or record says beside the digest: information, not proof."""

    genesis_sha256: str
    source: Source | None = None
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What `settle` found: the name of the verified file, if there is one; how many were re-hashed and quarantined.

    `stopped`: a re-hash was interrupted by a stop; nothing was decided.
    """

    file_name: str | None = None
    quarantined: int = 0
    rehashed: int = 0
    stopped: bool = False


class Believed(NamedTuple):
    """Receipts of which time are believed: seconds since the epoch."""

    oldest: float = 0.0
    newest: float = math.inf


ALL_BELIEVED = Believed()


@dataclass(frozen=True, slots=True)
class WasRead:
    """The digest of a verified file, and the state that it had before it was read for that."""

    identity: StatIdentity
    found: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `settle` was asked for."""

    wanted_name: str | None
    provenance: Provenance
    believed: Believed = ALL_BELIEVED
    read: Mapping[str, WasRead] = field(default_factory=dict)


def write_receipt(
    layout: StoreLayout, digest: str, file_name: str, status: os.stat_result, provenance: Provenance
) -> Receipt:
    """Write the receipt of a verified file whose `fstat`, taken after its last change, is `status`. Raises OSError."""
    receipt = Receipt(
        sha256=digest,
        size=status.st_size,
        file_name=file_name,
        source=provenance.source,
        revision=provenance.revision,
        verified_at=time.time(),
        verifier=f"r3mes {__version__}",
        genesis_sha256=provenance.genesis_sha256,
        st=StatIdentity.of(status),
    )
    receipt.write(layout.receipt(digest))
    return receipt


class ExistingFiles:
    """The verified files of a store. Methods raise OSError."""

    def __init__(self, layout: StoreLayout, stop: threading.Event, on_bytes: OnBytes = lambda _done: None) -> None:
        self._layout = layout
        self._stop = stop
        self._on_bytes = on_bytes

    def settle(
        self,
        digest: str,
        wanted_name: str | None,
        provenance: Provenance,
        *,
        believed: Believed = ALL_BELIEVED,
        read: Mapping[str, WasRead] | None = None,
    ) -> Settled:
        """Make sure that what lies under `verified/<digest>` is right, and bears the pinned name.

        `wanted_name` None: whatever name it has is kept (a model that left the genesis). A receipt of another time than
        is `believed` is not: that is how the scrub asks, with what it has `read` already.
        """
        try:
            with open_dir(self._layout.verified_dir(digest)) as directory:
                return self._settle(directory, digest, _Asked(wanted_name, provenance, believed, read or {}))
        except FileNotFoundError:
            return Settled()

    def read_doubtful(self, digest: str, believed: Believed) -> dict[str, WasRead] | None:
        """Read each file of a digest that has no right receipt, in nobody's way; None when told to stop meanwhile.

        No lock is held for that: `settle` compares whether a file still is what was read.
        """
        found: dict[str, WasRead] = {}
        with open_dir(self._layout.verified_dir(digest)) as directory:
            receipt = Receipt.read(RECEIPT, dir_fd=directory)
            for name in _model_names(directory):
                check = _Check(self._layout, directory, digest, name, receipt)
                if check.receipt_is_right(believed) or not stat.S_ISREG(check.status_before.st_mode):
                    continue
                was_read = _read_quietly(name, directory, self._stop)
                if was_read is None:
                    return None
                found[name] = was_read
        return found

    def _settle(self, directory: int, digest: str, asked: _Asked) -> Settled:
        names = sorted(_model_names(directory), key=lambda n: n != asked.wanted_name)
        kept, quarantined, rehashed = None, 0, 0
        for name in names:
            if kept is not None:  # the same bytes twice
                os.unlink(name, dir_fd=directory)
                continue
            receipt = Receipt.read(RECEIPT, dir_fd=directory)
            check = _Check(self._layout, directory, digest, name, receipt)
            if not check.receipt_is_right(asked.believed):
                rehashed += 1
                found = check.rehash(self._stop, self._on_bytes, asked.read.get(name))
                if found is None and self._stop.is_set():
                    return Settled(stopped=True)
                if found != digest:
                    check.quarantine(found, asked.provenance)
                    quarantined += 1
                    continue
                write_receipt(self._layout, digest, name, check.status_before, check.provenance(asked.provenance))
            kept = self._named(check, asked.wanted_name, asked.provenance)
        return Settled(kept, quarantined, rehashed)

    def _named(self, check: _Check, wanted_name: str | None, provenance: Provenance) -> str:
        """Give a right file the pinned name, when the genesis calls it by another now."""
        if wanted_name is None or check.name == wanted_name:
            return check.name
        rename_noreplace(check.name, wanted_name, source_dir_fd=check.directory, target_dir_fd=check.directory)
        os.fsync(check.directory)
        status = os.stat(wanted_name, dir_fd=check.directory, follow_symlinks=False)
        write_receipt(self._layout, check.digest, wanted_name, status, check.provenance(provenance))
        return wanted_name


class _Check:
    """One file under `verified/<digest>`, looked at through the directory's descriptor."""

    def __init__(self, layout: StoreLayout, directory: int, digest: str, name: str, receipt: Receipt | None) -> None:
        self._layout = layout
        self.directory = directory
        self.digest = digest
        self.name = name
        self._receipt = receipt
        self.status_before = os.stat(name, dir_fd=directory, follow_symlinks=False)

    def receipt_is_right(self, believed: Believed) -> bool:
        receipt, status = self._receipt, self.status_before
        return (
            receipt is not None
            and stat.S_ISREG(status.st_mode)
            and receipt.file_name == self.name
            and receipt.is_right(self.digest, status)
            and believed.oldest <= receipt.verified_at <= believed.newest
        )

    def rehash(self, stop: threading.Event, on_bytes: OnBytes, was_read: WasRead | None = None) -> str | None:
        """Return the digest of the file, None when it is not a regular file or the process is to stop.

        `status_before` is taken before the first byte: a change during the pass makes the receipt disagree. What
        `was_read` in exactly this state is not read again.
        """
        if not stat.S_ISREG(self.status_before.st_mode):
            return None
        descriptor = os.open(self.name, HOSTILE_FLAGS, dir_fd=self.directory)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != VERIFIED_FILE_MODE:
                os.fchmod(descriptor, VERIFIED_FILE_MODE)
            self.status_before = os.fstat(descriptor)
            if was_read is not None and was_read.identity == StatIdentity.of(self.status_before):
                found: str | None = was_read.found
            else:
                limit = self.status_before.st_size
                found = read_through(descriptor, limit=limit, stop=stop, on_bytes=on_bytes).found
            if found == self.digest:
                os.fsync(descriptor)  # whoever put it there may not have; the receipt lets incoming be removed
        finally:
            os.close(descriptor)
        return found

    def quarantine(self, found: str | None, provenance: Provenance) -> None:
        """Out of `verified/` at once, then the record of why. The bytes are not kept."""
        for name in (RECEIPT, self.name):
            try:
                os.unlink(name, dir_fd=self.directory)
            except FileNotFoundError:
                continue
        os.fsync(self.directory)
        status = self.status_before
        record = RejectedRecord(
            sha256=self.digest,
            found=found,
            size=status.st_size,
            reason="tampered",
            generation=f"verified-{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}",
            source=self._receipt.source if self._receipt else None,
            revision=self._receipt.revision if self._receipt else "",
            genesis_sha256=provenance.genesis_sha256,
            rejected_at=time.time(),
        )
        write_rejected(self._layout, record)

    def provenance(self, default: Provenance) -> Provenance:
        """Return what the old receipt knew of the file's origin, under the present genesis."""
        if self._receipt is None or self._receipt.sha256 != self.digest:
            return default
        return Provenance(default.genesis_sha256, self._receipt.source, self._receipt.revision)


def _model_names(directory: int) -> list[str]:
    return [name for name in os.listdir(directory) if name.endswith(SUFFIX)]


def _read_quietly(name: str, directory: int, stop: threading.Event) -> WasRead | None:
    descriptor = os.open(name, HOSTILE_FLAGS, dir_fd=directory)
    try:
        identity = StatIdentity.of(os.fstat(descriptor))
        found = hash_quietly(descriptor, identity.size, stop)
    finally:
        os.close(descriptor)
    return None if found is None else WasRead(identity, found)


def has_verified_name(layout: StoreLayout, digest: str) -> bool:
    """Tell whether a file lies under the digest's verified name, right or not."""
    try:
        return any(path.name.endswith(SUFFIX) for path in layout.verified_dir(digest).iterdir())
    except FileNotFoundError:
        return False


def verified_digest_dirs(layout: StoreLayout) -> list[Path]:
    """Return the directories of `verified/` that bear a digest's name, sorted."""
    try:
        return sorted(path for path in layout.verified.iterdir() if is_digest(path.name) and not path.is_symlink())
    except OSError:
        return []
