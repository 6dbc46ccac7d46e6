"""The one question to a chain's genesis: which model digests does its registry hold as active? Pure but for `read`.

`digests_of_chain_genesis` is the door; whoever has a better reader of chain geneses puts it behind this name. A genesis
without a registry is no empty registry: it is another chain's, and has no word here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from shared.errors import GenesisError
from shared.genesis.fields import FieldRefusedError, digest
from shared.genesis.quote import quote
from shared.genesis.strict_json import JsonRefusedError, JsonValue, join, load

MAX_CHAIN_GENESIS_BYTES = 256 * 1024 * 1024

_PATH = ("app_state", "remes", "model_registry_list")
_FILE = "the chain's genesis"


class Source(Protocol):
    """What a genesis is read from; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""


def digests_of_chain_genesis(source: Source) -> frozenset[str]:
    """Return `verification_sha256` (lower-case hex) of every active entry that has one.

    Raises GenesisError when this is no chain genesis with a model registry.
    """
    try:
        value = load(source.read(MAX_CHAIN_GENESIS_BYTES + 1), limit=MAX_CHAIN_GENESIS_BYTES)
    except JsonRefusedError as error:
        raise GenesisError(file=_FILE, field=error.field, found=error.found, wanted=error.wanted) from error
    path = ""
    for key in _PATH:
        if not isinstance(value, dict) or key not in value:
            raise GenesisError(file=_FILE, field=path, found=f"no {key}", wanted=".".join(_PATH))
        value, path = value[key], join(path, key)
    if not isinstance(value, list):
        raise GenesisError(file=_FILE, field=path, found=quote(value), wanted="a list")
    return frozenset(_active_digests(value, path))


def _active_digests(entries: list[JsonValue], path: str) -> Iterator[str]:
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise GenesisError(file=_FILE, field=f"{path}[{index}]", found=quote(entry), wanted="an object")
        config = entry.get("config")
        if (entry.get("is_active") or entry.get("isActive")) is not True or not isinstance(config, dict):
            continue
        found = config.get("verification_sha256") or config.get("verificationSha256")
        try:
            yield digest(found)
        except FieldRefusedError:
            continue  # an encrypted model, or one from before the hybrid fields: it pins nothing here
