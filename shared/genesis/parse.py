"""Bytes to Genesis, strictly: whatever is not exactly right is refused with file, field, found and wanted.

Pure but for reading its source. Which form a file has is said by the keys of its one object, never by its size:

| key at the top | form               | limit   | rules                                                         |
|----------------|--------------------|---------|---------------------------------------------------------------|
| `app_state`    | a chain's genesis  | 256 MiB | strict on the path to the registry and in it, else only JSON  |
| `model_config` | plain, one model   | 64 KiB  | strict throughout: no key twice, none that is not known       |
| `models`       | plain, a list      | 64 KiB  | the same                                                      |
| `model_ipfs`   | legacy, no SHA-256 | 64 KiB  | refused, with the way to migrate                              |

`app_state` beside one of the other three is refused. The first pass (`chain.find_registry`) reads the whole file once
through a window of bounded size, takes the registry on the way, and keeps the first 64 KiB for the plain forms; it ends
where a file with a key of theirs turns out to be longer.
"""

from __future__ import annotations

import hashlib
import io

from shared.genesis.chain import MAX_PLAIN_BYTES, chain_genesis, find_registry
from shared.genesis.json_stream import JsonStream, Source
from shared.genesis.quote import quote
from shared.genesis.refuser import Refuser, check_unique, model_pin
from shared.genesis.strict_json import JsonRefusedError, JsonValue, join, load
from shared.genesis.types import Genesis, ModelPin

MAX_GENESIS_BYTES = 256 * 1024 * 1024

REQUIRED_KEYS = (
    "model_name",
    "file_name",
    "download_source",
    "verification_sha256",
    "required_disk_space_gb",
    "ipfs_fallback_hash",
)
_KNOWN_KEYS = (*REQUIRED_KEYS, "size_bytes")
_FORMS = 'an object with one key, "model_config" (one model) or "models" (a list of models), or a chain\'s genesis'
_LEGACY_NEXT = (
    "the old form has no SHA-256: get the model file from someone you trust, then `r3mes genesis migrate THIS_FILE "
    "--file FILE.gguf --name NAME --url URL` makes a genesis of the new form beside it"
)


def parse_genesis(raw: bytes, *, file: str) -> Genesis:
    """Parse a genesis of any form; `file` is its name in messages.

    Raises GenesisError, and nothing else, for any bytes.
    """
    return parse_genesis_stream(io.BytesIO(raw), file=file)


def parse_genesis_stream(source: Source, *, file: str) -> Genesis:
    """Parse what `source` holds from where it stands to its end, in a few megabytes of memory.

    Raises GenesisError for its content, OSError when it cannot be read.
    """
    refuse = Refuser(file)
    begun = _Begun(source)
    try:
        stream = JsonStream(begun, limit=MAX_GENESIS_BYTES)
        registry = find_registry(stream, refuse)
        if registry is not None:
            return chain_genesis(registry, stream.sha256, refuse)
        value = load(begun.head, limit=MAX_PLAIN_BYTES)
    except JsonRefusedError as error:
        raise refuse.error(error.field, error.found, error.wanted) from error
    return _plain_genesis(value, hashlib.sha256(begun.head).hexdigest(), refuse)


class _Begun:
    """A source whose first bytes are kept, one more than a plain form may have."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.head = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read on, at most `size` bytes."""
        chunk = self._source.read(size)
        self.head += chunk[: MAX_PLAIN_BYTES + 1 - len(self.head)]
        return chunk


def _plain_genesis(value: JsonValue, sha256: str, refuse: Refuser) -> Genesis:
    entries = _entries(value, refuse)
    models = tuple((path, _model(entry, path, refuse)) for path, entry in entries)
    check_unique(models, refuse)
    return Genesis(tuple(pin for _, pin in models), sha256)


def _entries(value: JsonValue, refuse: Refuser) -> list[tuple[str, JsonValue]]:
    """Return each model's path and value; raises for every form but the two plain ones."""
    if not isinstance(value, dict):
        raise refuse.error("", quote(value), _FORMS)
    if "model_ipfs" in value:
        raise refuse.error("model_ipfs", f"the legacy form, {quote(value['model_ipfs'])}", _FORMS, _LEGACY_NEXT)
    _check_keys(value, ("model_config", "models"), "", refuse)
    match value:
        case {"model_config": _, "models": _}:
            raise refuse.error("", 'both "model_config" and "models"', _FORMS)
        case {"model_config": entry}:
            return [("model_config", entry)]
        case {"models": list(entries)} if entries:
            return [(f"models[{index}]", entry) for index, entry in enumerate(entries)]
        case {"models": other}:
            found = "an empty list" if isinstance(other, list) else quote(other)
            raise refuse.error("models", found, "a list of at least one model")
        case _:
            raise refuse.error("", "an empty object", _FORMS)


def _model(entry: JsonValue, path: str, refuse: Refuser) -> ModelPin:
    if not isinstance(entry, dict):
        raise refuse.error(path, quote(entry), "an object")
    _check_keys(entry, _KNOWN_KEYS, path, refuse)
    for key in REQUIRED_KEYS:
        if key not in entry:
            raise refuse.error(join(path, key), "no such key", _wanted(key))
    return model_pin(entry, path, refuse)


def _wanted(key: str) -> str:
    return 'a CID, or "" where none is known' if key == "ipfs_fallback_hash" else "this key"


def _check_keys(value: dict[str, JsonValue], known: tuple[str, ...], path: str, refuse: Refuser) -> None:
    for key in value:
        if key not in known:
            raise refuse.unknown_key(path, key, known)
