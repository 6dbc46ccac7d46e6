"""The genesis: which models the network runs, each pinned by the SHA-256 of its file.

Invariant: a `Genesis` exists only if every rule of the strict form holds, so whoever has one may use its fields as
paths, URLs and labels without checking again. Order: `parse_genesis(raw)` (pure: bytes in, Genesis or GenesisError
out), `read_genesis_file(path)` around it, `difference(old, new)` for a person.
"""

from shared.genesis.difference import ModelChange, difference
from shared.genesis.files import missing_genesis, read_genesis_bytes, read_genesis_file
from shared.genesis.parse import MAX_GENESIS_BYTES, parse_genesis
from shared.genesis.types import Genesis, ModelPin

__all__ = [
    "MAX_GENESIS_BYTES",
    "Genesis",
    "ModelChange",
    "ModelPin",
    "difference",
    "missing_genesis",
    "parse_genesis",
    "read_genesis_bytes",
    "read_genesis_file",
]
