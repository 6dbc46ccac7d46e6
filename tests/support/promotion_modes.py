"""The turns of the verifier on one digest that are held against faults: what lies in the store, and what is done.

Contents are small and buffers too (`crash_child` takes small steps), so that every kind of call is there and a turn has
about a hundred of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.verifier import linux
from shared.store.records import PartialNote
from tests.support.crash_child import STEP_BYTES
from tests.support.slow_download import Download
from tests.support.traced_child import Turn, follow, start, verify
from tests.support.verifier_store import Store, entry, sha256_of

COMMIT = 4 * STEP_BYTES
FILE_NAME = "tiny.gguf"
CONTENT = os.urandom(2 * STEP_BYTES + 5_000)  # whole buffers, and a tail that no O_DIRECT takes
LONG = os.urandom(COMMIT + 20_000)  # for low-space mode: one commit, and something after it


@dataclass(frozen=True)
class Prepared:
    """What lies in the store: the first `received` bytes of `content`, until `complete` brings the rest."""

    store: Store
    content: bytes
    received: int
    complete: Callable[[], None] = lambda: None

    @property
    def digest(self) -> str:
        return sha256_of(self.content)


@dataclass(frozen=True)
class Mode:
    """One kind of turn.

    `sees`: parts of its calls, without which it was not what its name says; `is_right`: whether the bytes are those of
    the digest.
    """

    name: str
    prepare: Callable[[Path], Prepared]
    least_calls: int
    sees: tuple[str, ...]
    first: Turn = verify
    without_tmpfile: bool = False
    is_right: bool = True

    def __str__(self) -> str:
        return self.name


def complete(root: Path) -> Prepared:
    store = Store.make(root, entry(CONTENT))
    store.put(sha256_of(CONTENT), CONTENT)
    return Prepared(store, CONTENT, len(CONTENT))


def wrong(root: Path) -> Prepared:
    store = Store.make(root, entry(CONTENT))
    store.put(sha256_of(CONTENT), CONTENT[::-1])
    return Prepared(store, CONTENT, len(CONTENT))


def low_space(root: Path) -> Prepared:
    store = Store.make(root, entry(LONG))
    Download(store, LONG, mode="low-space").complete()
    return Prepared(store, LONG, len(LONG))


def wrong_low_space(root: Path) -> Prepared:
    store = Store.make(root, entry(LONG))
    Download(store, LONG[::-1], sha256_of(LONG), mode="low-space").complete()
    return Prepared(store, LONG, len(LONG))


def resumed_low_space(root: Path) -> Prepared:
    """A crash came in low-space mode: the first bytes are in the partial alone, and some after them are not synced."""
    store = Store.make(root, entry(LONG))
    download = Download(store, LONG, mode="low-space")
    download.complete()
    partial = store.layout.partial_file(download.digest)
    partial.write_bytes(LONG[:COMMIT] + b"never synced")
    partial.chmod(0o600)
    PartialNote(generation=download.generation, durable=COMMIT).write(store.layout.partial_note(download.digest))
    with store.layout.data(download.digest).open("r+b") as data:
        linux.punch_hole(data.fileno(), COMMIT)
    return Prepared(store, LONG, len(LONG))


def half_there(root: Path) -> Prepared:
    store = Store.make(root, entry(CONTENT))
    download = Download(store, CONTENT)
    download.receive(2 * STEP_BYTES + 5, durable=True)
    return Prepared(store, CONTENT, download.received, download.complete)


def half_there_low_space(root: Path) -> Prepared:
    """Not all that is announced is durable: what is in the page cache outlives the process as well."""
    store = Store.make(root, entry(LONG))
    download = Download(store, LONG, mode="low-space")
    download.receive(COMMIT // 2, durable=True)
    download.receive(len(LONG) - 1000, announce=False)
    download.announce(ranges=((0, COMMIT // 2),))
    return Prepared(store, LONG, download.received, download.complete)


def without_receipt(root: Path) -> Prepared:
    """The verified name is there and nobody knows since when: step 0 hashes it again before incoming may go."""
    prepared = complete(root)
    file = prepared.store.layout.verified_file(prepared.digest, FILE_NAME)
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    file.chmod(0o444)
    return prepared


_PROMOTION = ("fallocate(", "pwrite64(", "fchmod(", "fsync(", "mkdir(", "receipt.json", "renameat2(", "unlinkat(")
UNNAMED = Mode("unnamed copy", complete, 90, (*_PROMOTION, "O_TMPFILE", "O_DIRECT", "linkat("))
MODES = (
    UNNAMED,
    Mode("named copy", complete, 90, (*_PROMOTION, ".partial/"), without_tmpfile=True),
    Mode("wrong bytes", wrong, 90, ("O_TMPFILE", "rejected/", "unlinkat("), is_right=False),
    Mode("low-space", low_space, 120, (*_PROMOTION, "FALLOC_FL_PUNCH_HOLE", "SEEK_HOLE")),
    Mode("a start after a crash", resumed_low_space, 150, (*_PROMOTION, "ftruncate(", '/rejected"'), first=start),
    Mode("wrong bytes in low-space", wrong_low_space, 120, ("PUNCH_HOLE", "rejected/", "unlink("), is_right=False),
    Mode("following", half_there, 35, ("O_TMPFILE", "pwrite64(", "lease.json"), first=follow),
    Mode("following in low-space", half_there_low_space, 60, ("PUNCH_HOLE", "fsync(", "lease.json"), first=follow),
    Mode("verified without a receipt", without_receipt, 60, ("fsync(", "receipt.json", "unlinkat(")),
)
