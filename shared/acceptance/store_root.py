"""The store's own facts: which kind it is, and directories with the rights of the design's table (§2).

`check_store` writes nothing and comes first; `prepare_directories` changes only what differs and touches no file but
the lock; `mark_store` comes last, so that a store with `store.json` has been through a whole acceptance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from shared.errors import StoreError
from shared.store.atomic import open_dir, read_hostile_json, set_rights
from shared.store.layout import (
    DIRECTORIES,
    STORE_FORMAT,
    TRUST_LOCK_MODE,
    VERIFIER_UID,
    DirectoryRights,
    StoreLayout,
)
from shared.store.records import StoreDocument

StoreKind = Literal["host", "container"]
_ROOT_MODE = 0o755


def check_store(layout: StoreLayout, kind: StoreKind) -> None:
    """Raise StoreError when `store.json` names another kind or a newer format, or cannot be read."""
    if not os.path.lexists(layout.store_json):
        return
    found = read_hostile_json(layout.store_json) or {}
    version = found.get("format")
    if isinstance(version, int) and version > STORE_FORMAT:
        raise StoreError(
            f"{layout.root} has store format {version}, this version knows {STORE_FORMAT}",
            next_step="use the newer version of R3MES Hybrid that wrote this store, or another R3MES_MODELS_DIR",
        )
    document = StoreDocument.read(layout.store_json)
    if document is None:
        raise StoreError(
            f"{layout.store_json} cannot be read", next_step="restore it from a backup, or use another R3MES_MODELS_DIR"
        )
    if document.kind != kind:
        raise StoreError(
            f"{layout.root} is a {document.kind} store, this process is set up for a {kind} store",
            next_step="use another R3MES_MODELS_DIR; `r3mes import` carries a model from one store to the other",
        )


def make_trust(layout: StoreLayout) -> None:
    """Make the store's root and `trust/`, as far as they are not there, so that there is a place for the lock."""
    with translated(layout):
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        if not layout.root.is_dir():
            layout.root.mkdir(exist_ok=True)
            layout.root.chmod(_ROOT_MODE)
        layout.trust.mkdir(mode=0o755, exist_ok=True)


def prepare_directories(layout: StoreLayout, kind: StoreKind) -> None:
    """Make each directory of the table; set what differs: modes, and in a container store owners, also of the lock.

    Under `trust/.lock`. Raises StoreError.
    """
    with translated(layout), open_dir(layout.root) as root:
        made = [_prepare(root, rights, kind) for rights in DIRECTORIES]
        if any(made):
            os.fsync(root)
        if kind == "container":
            _keep_lock(layout)


def mark_store(layout: StoreLayout, kind: StoreKind) -> None:
    """Write `store.json` where there is none. Raises StoreError."""
    with translated(layout):
        if not os.path.lexists(layout.store_json):
            StoreDocument(kind=kind).write(layout.store_json)


@contextmanager
def translated(layout: StoreLayout) -> Iterator[None]:
    """Turn an OSError of a write to the store into a StoreError that says what and where."""
    try:
        yield
    except OSError as error:
        where = error.filename or layout.root
        raise StoreError(
            f"cannot prepare the store {layout.root}: {where}: {error.strerror}",
            next_step="check that the disk has room and that this user owns the directory, or set R3MES_MODELS_DIR",
        ) from error


def _prepare(root: int, rights: DirectoryRights, kind: StoreKind) -> bool:
    """Make and correct one directory through the root's descriptor; returns whether it was made."""
    made = True
    try:
        os.mkdir(rights.name, mode=0o700, dir_fd=root)
    except FileExistsError:
        made = False
    # A link in a directory's place is refused here (O_NOFOLLOW), not followed.
    with open_dir(rights.name, dir_fd=root) as directory:
        set_rights(directory, owner=(rights.uid, rights.gid) if kind == "container" else None, mode=rights.mode)
    return made


def _keep_lock(layout: StoreLayout) -> None:
    """Leave the lock to `init` and the verifier: any other service that can open it can make an acceptance wait."""
    descriptor = os.open(layout.trust_lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        set_rights(descriptor, owner=(VERIFIER_UID, 0), mode=TRUST_LOCK_MODE)
    finally:
        os.close(descriptor)
