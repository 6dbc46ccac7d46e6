"""The one question to a chain's genesis: which model digests does its registry hold as active? Pure but for `read`.

A genesis without a registry is no empty registry: it is another chain's, and has no word here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from shared.errors import GenesisError
from shared.genesis.chain import Walked, walk_registry
from shared.genesis.fields import FieldRefusedError, digest
from shared.genesis.json_stream import JsonStream, Source
from shared.genesis.quote import quote
from shared.genesis.refuser import Refuser
from shared.genesis.strict_json import JsonRefusedError, JsonValue

MAX_CHAIN_GENESIS_BYTES = 256 * 1024 * 1024

_REGISTRY = "app_state.remes.model_registry_list"
_FILE = "the chain's genesis"


def digests_of_chain_genesis(source: Source) -> frozenset[str]:
    """Return `verification_sha256` (lower-case hex) of every active entry that has one; memory is bounded.

    Entries are judged less strictly than when they are to be loaded: one that is wrong must not silence the others.
    Raises GenesisError when this is no chain genesis with a model registry.
    """
    digests: set[str] = set()

    def take(entry: JsonValue, path: str) -> None:
        digests.update(_active_digest(entry, path))

    try:
        walked = walk_registry(JsonStream(source, limit=MAX_CHAIN_GENESIS_BYTES), Refuser(_FILE), take)
    except JsonRefusedError as error:
        raise GenesisError(file=_FILE, field=error.field, found=error.found, wanted=error.wanted) from error
    if walked is not Walked.REGISTRY:
        raise GenesisError(file=_FILE, field="", found="no model registry", wanted=_REGISTRY)
    return frozenset(digests)


def _active_digest(entry: JsonValue, path: str) -> Iterator[str]:
    if not isinstance(entry, dict):
        raise GenesisError(file=_FILE, field=path, found=quote(entry), wanted="an object")
    config = entry.get("config")
    if (entry.get("is_active") or entry.get("isActive")) is not True or not isinstance(config, dict):
        return
    found = config.get("verification_sha256") or config.get("verificationSha256")
    with suppress(FieldRefusedError):  # an encrypted model, or one from before the hybrid fields: it pins nothing here
        yield digest(found)
