"""Making an entry of the genesis from a hashed model file: fill in every field, write the file atomically.

Invariant: what replaces a genesis file has been parsed by the same strict parser that every service uses; a refused
result leaves the old file as it is. `add_entry` appends to a plain genesis; `migrate_legacy` writes a new one beside a
genesis of the legacy form, which it keeps. Both come after `check_addition` and `check_migration`, which refuse before
gigabytes are hashed what no digest can make right. Who writes holds the lock of the directory from reading to
replacing, so that of two who add at once neither loses, and removes what a killed one left behind.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.hashing import HashedFile
from shared.errors import ConfigurationError, GenesisError, UsageError
from shared.genesis import (
    MAX_PLAIN_BYTES,
    Genesis,
    ModelPin,
    parse_genesis,
    read_genesis_file,
    read_plain_bytes,
)
from shared.genesis.fields import ipfs_fallback_hash
from shared.genesis.placeholders import placeholder_digest
from shared.genesis.refuser import Refuser
from shared.genesis.strict_json import JsonRefusedError, JsonValue, load
from shared.store.atomic import open_dir, replace_bytes, sweep_temporaries

LEGACY_KEY = "model_ipfs"
_NEW_FILE_MODE = 0o644
# In the place of a digest that is not known yet: no file has it, and it is no placeholder.
_STAND_IN = hashlib.sha256(b"a model that is not hashed yet").hexdigest()
Entry = dict[str, str | int | float]


def check_addition(path: Path, model: Path, *, name: str, url: str, cid: str) -> None:
    """Raise what `add_entry` would for this model, as far as that can be said before it is hashed."""
    _appended(path, _trial(model, name=name, url=url, cid=cid))


def add_entry(path: Path, hashed: HashedFile, *, name: str, url: str, cid: str) -> Genesis:
    """Append the model to the genesis at `path`, or make that file; the result has the list form.

    An entry of the same name or file name that still has a placeholder for its digest is replaced.
    Raises GenesisError or UsageError, with the old file left as it is, when the result would not be right.
    """
    entry = _entry(hashed, name=name, url=url, cid=cid)
    try:
        real = path.resolve()
        with _writing(real):
            content, genesis = _appended(path, entry)
            mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else _NEW_FILE_MODE
            replace_bytes(real, content, mode=mode)
    except OSError as error:
        raise _cannot_write(path, error, "--genesis") from error
    return genesis


@dataclass(frozen=True, slots=True)
class LegacyGenesis:
    """A genesis of the legacy form: where it lies, its one CID (may be empty), and keys that nothing replaces."""

    path: Path
    cid: str
    other_keys: tuple[str, ...]


def read_legacy(path: Path) -> LegacyGenesis:
    """Read a genesis of the legacy form.

    Raises UsageError for a file that needs no migration, GenesisError for one that is wrong in any form.
    """
    try:
        read_genesis_file(path)
    except GenesisError as error:
        value = _plain_value(path) if error.field == LEGACY_KEY else None
        # With a key of another form it is in doubt what the file says.
        if not isinstance(value, dict) or {"app_state", "model_config", "models"} & value.keys():
            raise
        cid = Refuser(str(path)).checked(LEGACY_KEY, value[LEGACY_KEY], ipfs_fallback_hash)
        return LegacyGenesis(path, cid, tuple(key for key in value if key != LEGACY_KEY))
    raise UsageError(
        f"{path} is of a present form already", next_step=f"there is nothing to migrate; `r3mes genesis check {path}`"
    )


def check_output(legacy: LegacyGenesis, output: Path, *, overwrite: bool) -> None:
    """Raise UsageError when `output` is the old file itself, or is there and may not be replaced."""
    try:
        is_old = output.samefile(legacy.path)
    except OSError:  # not there, or not to be had, which writing it will tell
        is_old = False
    if is_old:
        raise UsageError(f"{output} is the old file, which is kept", next_step="name another file with --output")
    if not overwrite and os.path.lexists(output):
        raise _already_there(output)


def check_migration(legacy: LegacyGenesis, output: Path, model: Path, *, name: str, url: str, overwrite: bool) -> None:
    """Raise what `migrate_legacy` would for this model, as far as that can be said before it is hashed."""
    check_output(legacy, output, overwrite=overwrite)
    _migrated(output, _trial(model, name=name, url=url, cid=legacy.cid))


def migrate_legacy(
    legacy: LegacyGenesis, output: Path, hashed: HashedFile, *, name: str, url: str, overwrite: bool
) -> Genesis:
    """Write the one model of a legacy genesis, in the one-model form, to `output`.

    Raises GenesisError or UsageError, with nothing written, when the result would not be right or is not wanted.
    """
    content, genesis = _migrated(output, _entry(hashed, name=name, url=url, cid=legacy.cid))
    try:
        real = output.resolve() if overwrite else output.parent.resolve() / output.name
        with _writing(real):
            check_output(legacy, output, overwrite=overwrite)
            replace_bytes(real, content, mode=_NEW_FILE_MODE, overwrite=overwrite)
    except FileExistsError as error:
        raise _already_there(output) from error
    except OSError as error:
        raise _cannot_write(output, error, "--output") from error
    return genesis


@contextmanager
def _writing(real: Path) -> Iterator[None]:
    """Hold the lock of the directory in which the file is replaced, and sweep it of the replacements of the killed.

    Raises OSError.
    """
    with open_dir(real.parent) as directory:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system that locks no directory (NFS): of two at once one may lose, as ever
        else:
            sweep_temporaries(real.parent, glob.escape(real.name))
        yield


def _appended(path: Path, entry: Entry) -> tuple[bytes, Genesis]:
    """Return the genesis at `path` with one more model, as bytes and parsed; raises GenesisError, UsageError."""
    kept = [other for other in _entries(path) if not _is_template_of(other, entry)]
    content = json.dumps({"models": [*kept, entry]}, indent=2).encode() + b"\n"
    return content, parse_genesis(content, file=str(path))


def _migrated(output: Path, entry: Entry) -> tuple[bytes, Genesis]:
    content = json.dumps({"model_config": entry}, indent=2).encode() + b"\n"
    return content, parse_genesis(content, file=str(output))


def _trial(model: Path, *, name: str, url: str, cid: str) -> Entry:
    """Return the entry of a model that nobody has read yet."""
    return ModelPin(
        model_name=name,
        file_name=model.name,
        download_source=url,
        sha256=_STAND_IN,
        required_disk_space_gb=1.0,
        ipfs_fallback_hash=cid,
        size_bytes=1,
    ).to_json()


def _entry(hashed: HashedFile, *, name: str, url: str, cid: str) -> Entry:
    return ModelPin(
        model_name=name,
        file_name=hashed.name,
        download_source=url,
        sha256=hashed.sha256,
        required_disk_space_gb=hashed.required_disk_space_gb,
        ipfs_fallback_hash=cid,
        size_bytes=hashed.size_bytes,
    ).to_json()


def _already_there(path: Path) -> UsageError:
    return UsageError(f"{path} is there already", next_step="name another file with --output, or add --force")


def _cannot_write(path: Path, error: OSError, option: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot write {path}: {error.strerror}", next_step=f"name another file with {option}, or correct the rights"
    )


def _entries(path: Path) -> list[JsonValue]:
    """Return the entries of the present file as they stand there; none where there is no file."""
    try:
        value = _plain_value(path)
    except GenesisError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    match value:
        case {"model_config": entry, **rest} if not rest:
            return [entry]
        case {"models": list(entries), **rest} if not rest:
            return entries
        case _:
            read_genesis_file(path)  # says what is wrong
            raise UsageError(
                f"{path} is a chain genesis, which its chain writes", next_step="name a plain one with --genesis"
            )


def _plain_value(path: Path) -> JsonValue:
    """Return what a file of at most 64 KiB holds, None where it is larger or no strict JSON; raises GenesisError."""
    try:
        return load(read_plain_bytes(path), limit=MAX_PLAIN_BYTES)
    except JsonRefusedError:
        return None


def _is_template_of(other: JsonValue, entry: Entry) -> bool:
    """Whether `other` is the same model, still with a placeholder for its digest."""
    if not isinstance(other, dict):
        return False
    digest = other.get("verification_sha256")
    same = other.get("model_name") == entry["model_name"] or other.get("file_name") == entry["file_name"]
    return same and isinstance(digest, str) and bool(placeholder_digest(digest))
