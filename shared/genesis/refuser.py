"""The errors of one genesis file: each names file, field, found, wanted and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from shared.errors import GenesisError
from shared.genesis import fields
from shared.genesis.quote import quote
from shared.genesis.strict_json import JsonValue, join
from shared.genesis.types import ModelPin

_LONGEST_COMPARED = 64


class Refuser:
    """Makes the errors of the file whose name it knows."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, field: str, found: str, wanted: str, next_step: str = "") -> GenesisError:
        """Return the error of one field."""
        return GenesisError(
            file=self.file,
            field=field,
            found=found,
            wanted=wanted,
            next_step=next_step.replace("THIS_FILE", self.file)
            or f"correct it; `r3mes genesis check {self.file}` tells when it is right",
        )

    def unknown_key(self, path: str, key: str, known: Iterable[str]) -> GenesisError:
        """Return the error of a key that no rule speaks of, with the nearest that one does."""
        known = tuple(known)
        near = difflib.get_close_matches(key[:_LONGEST_COMPARED], known, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return self.error(join(path, key), "an unknown key", f"only {', '.join(known)}", hint)

    def checked(self, path: str, value: JsonValue, rule: Callable[[object], fields.T]) -> fields.T:
        """Return what `rule` makes of a value; raises GenesisError when it refuses."""
        try:
            return rule(value)
        except fields.FieldRefusedError as error:
            raise self.error(path, error.found, error.wanted, error.next_step) from error


def model_pin(entry: dict[str, JsonValue], path: str, refuse: Refuser) -> ModelPin:
    """Apply each field's rule to an entry whose keys were checked; raises GenesisError."""

    def checked(key: str, rule: Callable[[object], fields.T]) -> fields.T:
        return refuse.checked(join(path, key), entry[key], rule)

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


def check_unique(models: Iterable[tuple[str, ModelPin]], refuse: Refuser) -> None:
    """Refuse two models of one name, one file name (case-folded: not all file systems tell them apart) or digest.

    Each model comes with the path of its entry.
    """
    models = tuple(models)
    identities: tuple[tuple[str, Callable[[ModelPin], str]], ...] = (
        ("model_name", lambda pin: pin.model_name),
        ("file_name", lambda pin: pin.file_name.casefold()),
        ("verification_sha256", lambda pin: pin.sha256),
    )
    for key, identity in identities:
        first: dict[str, str] = {}
        for path, pin in models:
            earlier = first.setdefault(identity(pin), path)
            if earlier != path:
                found = f"{quote(identity(pin))}, as in {earlier}"
                raise refuse.error(f"{path}.{key}", found, f"a {key} of its own for each model")
