"""The genesis: which models the network runs, each pinned by the SHA-256 of its file.

Invariant: a `Genesis` exists only if every rule of the strict form holds, so whoever has one may use its fields as
paths, URLs and labels without checking again. Order: `parse_genesis(raw)` (pure: bytes in, Genesis or GenesisError
out) or `parse_genesis_stream(source)` (the same for a file of up to 256 MiB, in a few megabytes of memory),
`read_genesis_file(path)` around it, `difference(old, new)` for a person. Inside: `json_stream` (strict JSON through a
window), `chain` (the registry in a chain's genesis) and `registry` (its entries), `strict_json` and `parse` (the plain
forms), `fields` (the rule of each field, for all forms).
"""

from shared.genesis.chain import MAX_PLAIN_BYTES
from shared.genesis.difference import ModelChange, difference
from shared.genesis.files import (
    missing_genesis,
    open_genesis_descriptor,
    read_genesis_file,
    read_plain_bytes,
    too_long_genesis,
    unreadable_genesis,
)
from shared.genesis.parse import MAX_GENESIS_BYTES, parse_genesis, parse_genesis_stream
from shared.genesis.types import Genesis, LeftOut, ModelPin

__all__ = [
    "MAX_GENESIS_BYTES",
    "MAX_PLAIN_BYTES",
    "Genesis",
    "LeftOut",
    "ModelChange",
    "ModelPin",
    "difference",
    "missing_genesis",
    "open_genesis_descriptor",
    "parse_genesis",
    "parse_genesis_stream",
    "read_genesis_file",
    "read_plain_bytes",
    "too_long_genesis",
    "unreadable_genesis",
]
