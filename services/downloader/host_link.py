"""On a host: `<models>/<file_name>` leads to the verified file, so that `~/.r3mes/models/*.gguf` is what may be loaded.

The link is relative and replaced atomically. A file or link that somebody else put there is left alone and named; only
a regular file whose digest is the pinned one (an adopted file) gives way.
"""

from __future__ import annotations

import os
import secrets
from enum import Enum, auto
from pathlib import Path

from services.downloader.interrupt import Interrupt
from services.downloader.sources.imported import FileHash, hash_file, identity_of
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout


class Place(Enum):
    """What stands where the link belongs."""

    FREE = auto()
    LINKED = auto()
    FILE = auto()
    FOREIGN = auto()


def look_at(layout: StoreLayout, pin: ModelPin) -> Place:
    """Say what stands at `<models>/<file_name>`."""
    path = layout.root / pin.file_name
    if path.is_symlink():
        target = str(path.readlink())
        if target == _target(pin):
            return Place.LINKED
        return Place.FREE if target.startswith("verified/") else Place.FOREIGN
    if not path.exists():
        return Place.FREE
    return Place.FILE if path.is_file() else Place.FOREIGN


def make_link(layout: StoreLayout, pin: ModelPin) -> None:
    """Put the link in place atomically, over whatever stands there; raises OSError."""
    temporary = layout.root / f".{secrets.token_hex(8)}.link"
    temporary.symlink_to(_target(pin))
    try:
        temporary.replace(layout.root / pin.file_name)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def replace_adopted(layout: StoreLayout, pin: ModelPin, interrupt: Interrupt) -> FileHash | None:
    """Replace a regular file of the pinned digest by the link; return its hash when it is another, and leave it.

    Raises OSError, SourceUnavailableError when it changes meanwhile, and the interrupt.
    """
    path = layout.root / pin.file_name
    found = hash_file(path, interrupt)
    if found.sha256 != pin.sha256 or identity_of(path, follow=False) != found.identity:
        return found
    make_link(layout, pin)
    return None


def link_path(layout: StoreLayout, pin: ModelPin) -> Path:
    """Return where the link belongs."""
    return layout.root / pin.file_name


def _target(pin: ModelPin) -> str:
    return os.path.join("verified", pin.sha256, pin.file_name)  # noqa: PTH118 - the text of a relative link
