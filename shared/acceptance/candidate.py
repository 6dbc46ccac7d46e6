"""The operator's genesis file, read and checked against everything that was given; nothing here writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.acceptance.settings import InitSettings
from shared.acceptance.signature import check_signature
from shared.addresses import AddressPolicy, check_download_sources
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import Genesis, parse_genesis, read_genesis_bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genesis that passed every check: where it came from, its raw bytes, and what they say.

    `signature` is the text of its signature file, None where no key is set.
    """

    path: Path
    raw: bytes
    genesis: Genesis
    signature: str | None

    @property
    def sha256(self) -> str:
        """Digest of the raw bytes, in hex."""
        return self.genesis.sha256


def read_candidate(settings: InitSettings) -> Candidate:
    """Read the operator's file, compare it with R3MES_GENESIS_SHA256, check its signature, parse it.

    Raises GenesisError (no such file, or wrong) and ConfigurationError (another digest, no right signature).
    """
    raw = read_genesis_bytes(settings.genesis)
    check_pinned_digest(settings, hashlib.sha256(raw).hexdigest(), settings.genesis)
    signature = check_signature(settings, raw)
    return Candidate(settings.genesis, raw, parse_genesis(raw, file=str(settings.genesis)), signature)


def find_candidate(settings: InitSettings) -> Candidate | None:
    """Return the operator's file, or None where there is none; raises as `read_candidate` does."""
    try:
        return read_candidate(settings)
    except GenesisError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def check_pinned_digest(settings: InitSettings, sha256: str, path: Path) -> None:
    """Raise ConfigurationError when R3MES_GENESIS_SHA256 is given and is not `sha256`."""
    if settings.genesis_sha256 not in {None, sha256}:
        raise ConfigurationError(
            f"{path} has the SHA-256 {sha256}, R3MES_GENESIS_SHA256 is {settings.genesis_sha256}",
            next_step="get the genesis file that this digest belongs to, or correct R3MES_GENESIS_SHA256",
        )


def check_addresses(candidate: Candidate, environ: Mapping[str, str]) -> None:
    """Raise GenesisError for a download source that the operator's settings do not allow."""
    sources = [pin.download_source for pin in candidate.genesis.models]
    policy = AddressPolicy.from_environ(environ, sources)
    check_download_sources(policy, candidate.genesis, file=str(candidate.path))
