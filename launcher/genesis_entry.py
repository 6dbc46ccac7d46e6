"""Making an entry of the genesis from a hashed model file: fill in every field, write the file atomically.

Invariant: what replaces the genesis file has been parsed by the same strict parser that every service uses; a refused
result leaves the old file as it is.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from launcher.hashing import HashedFile
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import MAX_GENESIS_BYTES, Genesis, ModelPin, parse_genesis, read_genesis_bytes
from shared.genesis.placeholders import placeholder_digest
from shared.genesis.strict_json import JsonRefusedError, JsonValue, load
from shared.store.atomic import replace_bytes

_NEW_FILE_MODE = 0o644


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
