"""The operator's genesis file, checked against everything that was given; nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shared.acceptance.genesis_file import GenesisFile, open_genesis
from shared.acceptance.settings import InitSettings
from shared.acceptance.signature import check_signature
from shared.addresses import AddressPolicy, check_download_sources
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import Genesis


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genesis that passed every check: its file, open, and the text of its signature file (None: no key is set)."""

    file: GenesisFile
    signature: str | None

    @property
    def path(self) -> Path:
        """Where the operator's file lies, or lay."""
        return self.file.path

    @property
    def sha256(self) -> str:
        """Digest of the raw bytes, in hex."""
        return self.file.sha256

    @property
    def genesis(self) -> Genesis:
        """What the file says; raises as `GenesisFile.genesis` where `read_candidate` was told not to parse it."""
        return self.file.genesis


def read_candidate(settings: InitSettings, *, accepted: str | None = None) -> Candidate:
    """Open the operator's file, compare it with R3MES_GENESIS_SHA256, check its signature, parse it.

    A file of the digest `accepted` is not parsed: the accepted copy of the same bytes is what counts.
    Raises GenesisError (no such file, or wrong) and ConfigurationError (another digest, no right signature).
    """
    with ExitStack() as refused:
        file = open_genesis(settings.genesis)
        refused.callback(file.close)
        check_pinned_digest(settings, file.sha256, settings.genesis)
        candidate = Candidate(file, check_signature(settings, file))
        if candidate.sha256 != accepted:
            _ = candidate.genesis  # here, before anyone takes a lock
        refused.pop_all()
    return candidate


def find_candidate(settings: InitSettings, *, accepted: str | None = None) -> Candidate | None:
    """Return the operator's file, or None where there is none; raises as `read_candidate` does."""
    try:
        return read_candidate(settings, accepted=accepted)
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


def check_addresses(genesis: Genesis, path: Path, environ: Mapping[str, str]) -> None:
    """Raise GenesisError, which names the file at `path`, for a source that the operator's settings do not allow."""
    policy = AddressPolicy.from_environ(environ, [pin.download_source for pin in genesis.models])
    check_download_sources(policy, genesis, file=str(path))
