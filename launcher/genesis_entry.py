"""Making an entry of the genesis from a model file: hash it, fill in every field, write the file atomically.

Invariant: what replaces the genesis file has been parsed by the same strict parser that every service uses; a refused
result leaves the old file as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from shared.errors import ConfigurationError, GenesisError, UsageError
from shared.genesis import MAX_GENESIS_BYTES, Genesis, ModelPin, parse_genesis, read_genesis_bytes
from shared.genesis.placeholders import placeholder_digest
from shared.genesis.strict_json import JsonRefusedError, JsonValue, load
from shared.store.atomic import replace_bytes

_BUFFER_BYTES = 4 * 1024 * 1024
_TENTH_OF_A_GIGABYTE = 10**8
_GGUF_MAGIC = b"GGUF"
_NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A model file that was read from end to end: its name, digest (hex) and size in bytes."""

    name: str
    sha256: str
    size_bytes: int
    looks_like_gguf: bool

    @property
    def required_disk_space_gb(self) -> float:
        """The size, rounded up to a tenth of a GB (10^9 bytes)."""
        return -(-self.size_bytes // _TENTH_OF_A_GIGABYTE) / 10


def hash_file(path: Path, console: Console) -> HashedFile:
    """Hash a model file with a progress bar (on a terminal).

    Raises UsageError when it cannot be read, is empty, no regular file, or changes meanwhile.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode) or before.st_size == 0:
                raise UsageError(f"{path} is empty or no regular file", next_step="name one whole *.gguf file")
            digest, head = hashlib.sha256(), b""
            buffer = memoryview(bytearray(_BUFFER_BYTES))
            with _progress(console) as progress:
                task = progress.add_task(f"hashing {path.name}", total=before.st_size)
                while count := file.readinto(buffer):
                    head = head or bytes(buffer[: len(_GGUF_MAGIC)])
                    digest.update(buffer[:count])
                    progress.advance(task, count)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", next_step="check the path") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UsageError(f"{path} changed while it was read", next_step="try again once nothing writes to it")
    return HashedFile(path.name, digest.hexdigest(), before.st_size, looks_like_gguf=head == _GGUF_MAGIC)


def add_entry(path: Path, hashed: HashedFile, *, name: str, url: str, cid: str) -> Genesis:
    """Append the model to the genesis at `path`, or make that file; the result has the list form.

    An entry of the same name or file name that still has a placeholder for its digest is replaced.
    Raises GenesisError, with the old file left as it is, when the result would not be right.
    """
    entry = ModelPin(
        model_name=name,
        file_name=hashed.name,
        download_source=url,
        sha256=hashed.sha256,
        required_disk_space_gb=hashed.required_disk_space_gb,
        ipfs_fallback_hash=cid,
        size_bytes=hashed.size_bytes,
    ).to_json()
    kept = [other for other in _entries(path) if not _is_template_of(other, entry)]
    content = json.dumps({"models": [*kept, entry]}, indent=2).encode() + b"\n"
    genesis = parse_genesis(content, file=str(path))
    try:
        real = path.resolve()
        mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else _NEW_FILE_MODE
        replace_bytes(real, content, mode=mode)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}",
            next_step="name another file with --genesis, or correct the rights",
        ) from error
    return genesis


def _entries(path: Path) -> list[JsonValue]:
    """Return the entries of the present file as they stand there; none where there is no file."""
    try:
        raw = read_genesis_bytes(path)
    except GenesisError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    try:
        value = load(raw, limit=MAX_GENESIS_BYTES)
    except JsonRefusedError:
        value = None
    match value:
        case {"model_config": entry, **rest} if not rest:
            return [entry]
        case {"models": list(entries), **rest} if not rest:
            return entries
        case _:
            parse_genesis(raw, file=str(path))  # says what is wrong
            return []


def _is_template_of(other: JsonValue, entry: dict[str, str | int | float]) -> bool:
    """Whether `other` is the same model, still with a placeholder for its digest."""
    if not isinstance(other, dict):
        return False
    digest = other.get("verification_sha256")
    same = other.get("model_name") == entry["model_name"] or other.get("file_name") == entry["file_name"]
    return same and isinstance(digest, str) and bool(placeholder_digest(digest))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
