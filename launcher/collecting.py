"""What a store holds of models that no genesis pins, and its removal; safe beside running services.

Verified models and records are removed by `services.verifier.run_once`, what lies in incoming by
`services.downloader.run_once`, under its lease. Each item is removed under `trust/.lock` with trust read again under
it: what was accepted or staged since it was found stays.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.handing_over import handed_over
from services.downloader import run_once as downloading
from services.verifier import run_once as verifying
from shared.acceptance.store_root import StoreKind
from shared.acceptance.unpinned import pinned_for_now
from shared.errors import R3mesError
from shared.store.layout import DIGEST, StoreLayout, is_digest
from shared.store.records import AcceptedDocument, UnpinnedNote
from shared.store.trust import read_trust

_RECORD = re.compile(rf"({DIGEST.pattern})-[0-9]+\.json")
_BLOCK_BYTES = 512


class Kind(StrEnum):
    """Where something lies."""

    VERIFIED = "verified"
    INCOMING = "incoming"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Garbage:
    """What the store holds of one digest in one place: how many files, and the bytes that they occupy.

    Of a verified model also its name, and for how many seconds it has been out of the genesis as far as that was noted.
    """

    kind: Kind
    digest: str
    files: int
    bytes: int
    file_name: str = ""
    absent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of it: kept for a reason (`has_failed`: it should not have been), or removed."""

    kept: str = ""
    has_failed: bool = False


def find_garbage(layout: StoreLayout, pinned: frozenset[str]) -> tuple[Garbage, ...]:
    """Return what is there of digests that are not `pinned`; reads only, and raises nothing."""
    return (*_verified(layout, pinned), *_incoming(layout, pinned), *_rejected(layout, pinned))


def remove(layout: StoreLayout, kind: StoreKind, garbage: Garbage) -> Fate:
    """Remove one item, unless it is pinned by now or somebody writes it. Raises StoreError or GenesisError."""
    with pinned_for_now(layout) as pinned:
        if garbage.digest in pinned:
            return Fate("it is pinned by now")
        try:
            return _remove(layout, kind, garbage)
        except (OSError, R3mesError) as error:
            return Fate(error.message if isinstance(error, R3mesError) else str(error), has_failed=True)


def remove_links(layout: StoreLayout, kind: StoreKind) -> None:
    """On a host: remove the links that lead to what is not accepted. Raises StoreError or GenesisError."""
    if kind == "host":
        accepted = frozenset(pin.sha256 for pin in read_trust(layout).genesis.models)
        with suppress(OSError):  # the downloader's next turn does the same
            downloading.sweep_links(layout, accepted)


def _remove(layout: StoreLayout, kind: StoreKind, garbage: Garbage) -> Fate:
    match garbage.kind:
        case Kind.VERIFIED:
            verifying.remove_verified(layout, garbage.digest)
        case Kind.REJECTED:
            verifying.remove_rejected(layout, garbage.digest)
        case Kind.INCOMING:
            # What is made on the way, a lease, is the downloader's own if it has to stay.
            with handed_over(layout, garbage.digest) if kind == "container" else nullcontext():
                if not downloading.discard_once(layout, garbage.digest):
                    return Fate("another process may be writing it; a running downloader removes it by itself")
    return Fate()


def _verified(layout: StoreLayout, pinned: frozenset[str]) -> Iterator[Garbage]:
    accepted = AcceptedDocument.read(layout.accepted)
    for path in _directories(layout.verified, pinned):
        names = sorted(entry.name for entry in _files(path) if entry.suffix == ".gguf")
        if names:
            files, occupied = _measure(_files(path))
            note = UnpinnedNote.read(layout.unpinned_note(path.name))
            since = note if accepted is not None and note and note.accepted_at == accepted.accepted_at else None
            absent = since.absent_seconds + max(0.0, time.time() - since.counted_at) if since else None
            yield Garbage(Kind.VERIFIED, path.name, files, occupied, names[0], absent)


def _incoming(layout: StoreLayout, pinned: frozenset[str]) -> Iterator[Garbage]:
    for path in _directories(layout.incoming, pinned):
        yield Garbage(Kind.INCOMING, path.name, *_measure(_files(path)))


def _rejected(layout: StoreLayout, pinned: frozenset[str]) -> Iterator[Garbage]:
    records: defaultdict[str, list[Path]] = defaultdict(list)
    for path in _files(layout.rejected):
        match = _RECORD.fullmatch(path.name)
        if match is not None and match[1] not in pinned:
            records[match[1]].append(path)
    for digest, paths in sorted(records.items()):
        yield Garbage(Kind.REJECTED, digest, *_measure(paths))


def _directories(parent: Path, pinned: frozenset[str]) -> list[Path]:
    entries = _files(parent)
    return sorted(
        path for path in entries if is_digest(path.name) and path.name not in pinned and not path.is_symlink()
    )


def _files(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _measure(paths: list[Path]) -> tuple[int, int]:
    """Count files and the bytes that they occupy; what is gone meanwhile counts as nothing."""
    files = occupied = 0
    for path in paths:
        try:
            occupied += os.lstat(path).st_blocks * _BLOCK_BYTES
            files += 1
        except OSError:
            continue
    return files, occupied
