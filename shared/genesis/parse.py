"""Bytes to Genesis, strictly: whatever is not exactly right is refused with file, field, found and wanted.

Pure. Order: JSON (`strict_json`), the form (one model, a list, or one of the forms that are recognised and refused),
each entry's keys, each field's rule (`fields`), then what must be unique across entries.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable

from shared.errors import GenesisError
from shared.genesis import fields
from shared.genesis.quote import quote
from shared.genesis.strict_json import JsonRefusedError, JsonValue, join, load
from shared.genesis.types import Genesis, ModelPin

MAX_GENESIS_BYTES = 64 * 1024

REQUIRED_KEYS = (
    "model_name",
    "file_name",
    "download_source",
    "verification_sha256",
    "required_disk_space_gb",
    "ipfs_fallback_hash",
)
_KNOWN_KEYS = (*REQUIRED_KEYS, "size_bytes")
_FORMS = 'an object with one key, "model_config" (one model) or "models" (a list of models)'
_CHAIN_NEXT = (
    "this version reads the plain forms only: write the active entries' config into a file of its own, "
    'as {"models": [...]}, and point R3MES_GENESIS at it'
)
_LEGACY_NEXT = (
    "the old form has no SHA-256: fetch the model file, then "
    "`r3mes genesis add FILE.gguf --name NAME --url URL --cid CID`, where CID is the old model_ipfs value"
)


class _Refuser:
    """Makes the errors of one file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, field: str, found: str, wanted: str, next_step: str = "") -> GenesisError:
        return GenesisError(
            file=self.file,
            field=field,
            found=found,
            wanted=wanted,
            next_step=next_step.replace("THIS_FILE", self.file)
            or f"correct it; `r3mes genesis check {self.file}` tells when it is right",
        )


def parse_genesis(raw: bytes, *, file: str) -> Genesis:
    """Parse a genesis of the plain or the list form; `file` is its name in messages.

    Raises GenesisError, and nothing else, for any bytes.
    """
    refuse = _Refuser(file)
    try:
        value = load(raw, limit=MAX_GENESIS_BYTES)
    except JsonRefusedError as error:
        next_step = _CHAIN_NEXT if len(raw) > MAX_GENESIS_BYTES and b'"app_state"' in raw else ""
        raise refuse.error(error.field, error.found, error.wanted, next_step) from error
    models = tuple(_model(entry, path, refuse) for path, entry in _entries(value, refuse))
    _check_unique(models, refuse)
    return Genesis(models=models, sha256=hashlib.sha256(raw).hexdigest())


def _entries(value: JsonValue, refuse: _Refuser) -> list[tuple[str, JsonValue]]:
    """Return each model's path and value; raises for every form but the two plain ones."""
    if not isinstance(value, dict):
        raise refuse.error("", quote(value), _FORMS)
    if "app_state" in value:
        raise refuse.error("app_state", "a chain genesis", "a plain genesis", _CHAIN_NEXT)
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


def _model(entry: JsonValue, path: str, refuse: _Refuser) -> ModelPin:
    if not isinstance(entry, dict):
        raise refuse.error(path, quote(entry), "an object")
    _check_keys(entry, _KNOWN_KEYS, path, refuse)
    for key in REQUIRED_KEYS:
        if key not in entry:
            raise refuse.error(join(path, key), "no such key", _wanted(key))

    def checked(key: str, rule: Callable[[object], fields.T]) -> fields.T:
        try:
            return rule(entry[key])
        except fields.FieldRefusedError as error:
            raise refuse.error(join(path, key), error.found, error.wanted, error.next_step) from error

    required = checked("required_disk_space_gb", fields.disk_space)
    return ModelPin(
        model_name=checked("model_name", fields.model_name),
        file_name=checked("file_name", fields.file_name),
        download_source=checked("download_source", fields.download_source),
        sha256=checked("verification_sha256", fields.digest),
        required_disk_space_gb=required,
        ipfs_fallback_hash=checked("ipfs_fallback_hash", fields.ipfs_fallback_hash),
        size_bytes=checked("size_bytes", fields.size_within(required)) if "size_bytes" in entry else None,
    )


def _wanted(key: str) -> str:
    return 'a CID, or "" where none is known' if key == "ipfs_fallback_hash" else "this key"


def _check_keys(value: dict[str, JsonValue], known: tuple[str, ...], path: str, refuse: _Refuser) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key[:64], known, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise refuse.error(join(path, key), "an unknown key", f"only {', '.join(known)}", hint)


def _check_unique(models: tuple[ModelPin, ...], refuse: _Refuser) -> None:
    """Refuse two models of one name, one file name (case-folded: not all file systems tell them apart) or digest."""
    identities: tuple[tuple[str, Callable[[ModelPin], str]], ...] = (
        ("model_name", lambda pin: pin.model_name),
        ("file_name", lambda pin: pin.file_name.casefold()),
        ("verification_sha256", lambda pin: pin.sha256),
    )
    for key, identity in identities:
        first: dict[str, int] = {}
        for index, pin in enumerate(models):
            earlier = first.setdefault(identity(pin), index)
            if earlier != index:
                found = f"{quote(identity(pin))}, as in models[{earlier}]"
                raise refuse.error(f"models[{index}].{key}", found, f"a {key} of its own for each model")
