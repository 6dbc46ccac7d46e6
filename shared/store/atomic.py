"""The few operations on files that survive a crash and a hostile neighbour.

A document is replaced by write → fsync → rename → fsync of its directory, so a reader sees the old one or the new one.
A document of another service is *hostile*: opened without following links or blocking, read up to 64 KiB, and anything
that is not a JSON object is absent.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

MAX_DOCUMENT_BYTES = 64 * 1024
_SUFFIX = "[0-9a-f]" * 16  # of a temporary name, as a pattern
HOSTILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def open_dir(path: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """Yield a descriptor of a directory, not following a link in its last component; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable; raises OSError."""
    with open_dir(path) as descriptor:
        os.fsync(descriptor)


def set_rights(descriptor: int, *, owner: tuple[int, int] | None, mode: int) -> None:
    """Set owner (user, group; None: leave it) and mode of what is open, where they differ; raises OSError."""
    status = os.fstat(descriptor)
    if owner is not None and (status.st_uid, status.st_gid) != owner:
        os.fchown(descriptor, *owner)
        status = os.fstat(descriptor)  # chown may have cleared the setgid bit
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def replace_bytes(
    path: Path, content: bytes, *, mode: int, owner: tuple[int, int] | None = None, overwrite: bool = True
) -> None:
    """Replace `path` atomically and durably by a file of `content` with exactly this mode (and owner).

    Raises OSError; FileExistsError, with the old file left as it is, where there is one and `overwrite` is False.
    """
    replace_chunks(path, (content,), mode=mode, owner=owner, overwrite=overwrite)


def replace_chunks(
    path: Path,
    chunks: Iterable[bytes],
    *,
    mode: int,
    owner: tuple[int, int] | None = None,
    overwrite: bool = True,
) -> None:
    """Do what `replace_bytes` does with content that comes in pieces; what `chunks` raises leaves the old file."""
    with open_dir(path.parent) as directory:
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                set_rights(descriptor, owner=owner, mode=mode)
                os.fsync(descriptor)
            if overwrite:
                os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                os.link(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
                os.unlink(temporary, dir_fd=directory)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)


def replace_json(path: Path, document: object, *, mode: int) -> None:
    """Replace `path` atomically and durably by `document` as JSON; raises OSError."""
    replace_bytes(path, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n", mode=mode)


@contextmanager
def open_regular(path: Path | str, *, dir_fd: int | None = None) -> Iterator[BufferedReader | None]:
    """Yield a regular file for reading, or None where there is none. Follows no link and never blocks.

    Raises OSError when it cannot be opened now, which says nothing about its content.
    """
    try:
        descriptor = os.open(path, HOSTILE_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        yield None
        return
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield None
            return
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: Path | str, *, dir_fd: int | None = None, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
    """Return the content of a regular file of at most `limit` bytes; None when there is no such file.

    Follows no link and never blocks. Raises OSError when it cannot be read now.
    """
    with open_regular(path, dir_fd=dir_fd) as file:
        content = file.read(limit + 1) if file else None
    return content if content is not None and len(content) <= limit else None


def read_hostile_bytes(path: Path | str, *, dir_fd: int | None = None, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
    """Return what `read_bytes` does, and None for what cannot be read as well."""
    try:
        return read_bytes(path, dir_fd=dir_fd, limit=limit)
    except OSError:
        return None


def read_hostile_json(path: Path | str, *, dir_fd: int | None = None) -> dict[str, object] | None:
    """Return a JSON object that another service wrote, else None; no content of the file makes this raise."""
    content = read_hostile_bytes(path, dir_fd=dir_fd)
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def temporaries(directory: Path, name: str = "*.json") -> Iterator[Path]:
    """Yield what `replace_bytes` left behind when it was killed: `.name.<16 hex>` files of this directory."""
    return directory.glob(f".{name}.{_SUFFIX}")


def sweep_temporaries(directory: Path, name: str = "*.json") -> None:
    """Remove what `replace_bytes` left behind; only for whoever alone writes there."""
    for path in temporaries(directory, name):
        path.unlink(missing_ok=True)
