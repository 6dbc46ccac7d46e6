"""Which sources there are for a pin, and how to make them.

A local file that was found wrong, or cannot be read, is not offered again as long as it does not change.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.settings import DownloaderSettings
from services.downloader.sources.base import Facts, Supply
from services.downloader.sources.connection import Gate
from services.downloader.sources.imported import FileHash, ImportedSupply, identity_of
from services.downloader.sources.ipfs import in_turn, is_spread, tries
from services.downloader.sources.pacing import Pace
from services.downloader.sources.preflight import refuse_mismatch
from services.downloader.sources.session import Web
from services.downloader.sources.web import Address, WebSupply
from shared.addresses import AddressPolicy
from shared.genesis import ModelPin
from shared.states import Source
from shared.store.records import StatIdentity
from shared.store.trust import Trust

log = structlog.get_logger(__name__)


class WrongFiles:
    """Local files of a pinned name that are of no use: named, left alone, remembered while they do not change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, StatIdentity] = {}

    def add(self, path: Path, found: FileHash) -> None:
        """Remember a wrong file and say so."""
        with self._lock:
            self._known[path] = found.identity
        log.warning("a local file is not the pinned one and is left alone", file=str(path), sha256=found.sha256)

    def add_unreadable(self, path: Path, error: OSError) -> None:
        """Remember a file that cannot be read and say so; other rights are another state."""
        identity = identity_of(path)
        if identity is None:
            return
        with self._lock:
            self._known[path] = identity
        log.warning("a local file cannot be read and is left alone", file=str(path), error=error.strerror)

    def has(self, path: Path, identity: StatIdentity) -> bool:
        """Tell whether this file, in this state, is known to be of no use."""
        with self._lock:
            return self._known.get(path) == identity


class Offers:
    """Makes the sources of a pin from settings, policy and what lies on this machine."""

    def __init__(self, settings: DownloaderSettings, environ: Mapping[str, str], limits: Limits) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._limits = limits
        self._pace = Pace(settings.max_bytes_per_second)
        self.wrong_files = WrongFiles()

    def check(self, trust: Trust) -> None:
        """Raise ConfigurationError when the settings about addresses do not make sense."""
        self.policy(trust)

    def policy(self, trust: Trust) -> AddressPolicy:
        """Return which addresses are allowed under the present geneses; raises ConfigurationError."""
        staged = trust.staged.models if trust.staged else ()
        return AddressPolicy.from_environ(
            self._environ, [pin.download_source for pin in (*trust.genesis.models, *staged)]
        )

    @property
    def ipfs_tries(self) -> int:
        """How many wrong files the gateways may deliver before they are not asked any more."""
        return tries(len(self._settings.ipfs_gateways))

    def of(self, pin: ModelPin) -> tuple[Source, ...]:
        """Return the sources that exist for `pin` now, in order."""
        offered = [Source.IMPORT] if self._local_files(pin) else []
        offered.append(Source.HUGGINGFACE)
        if pin.ipfs_fallback_hash and self._settings.ipfs_gateways:
            offered.append(Source.IPFS)
        return tuple(offered)

    def make(self, pin: ModelPin, source: Source, trust: Trust, mismatches: int) -> Supply:
        """Return the places of one source; `mismatches` is how often it has delivered wrong bytes that count."""
        policy = self.policy(trust)
        token = self._settings.hf_token.get_secret_value() if self._settings.hf_token else None

        def make_web(interrupt: Interrupt) -> Web:
            gate = Gate(policy, interrupt, self._limits)
            return Web(gate, self._limits, self._pace, token if source is Source.HUGGINGFACE else None)

        def judge(facts: Facts) -> None:
            refuse_mismatch(pin, facts)

        match source:
            case Source.IMPORT:
                wrong = self.wrong_files
                return ImportedSupply(self._local_files(pin), pin.sha256, wrong.add, wrong.add_unreadable)
            case Source.HUGGINGFACE:
                addresses = [Address(policy.effective_source(pin.download_source))]
                return WebSupply(source, addresses, make_web, judge, self._limits.connections)
            case Source.IPFS:
                cid = pin.ipfs_fallback_hash
                urls = [f"{gateway.rstrip('/')}/ipfs/{cid}" for gateway in self._settings.ipfs_gateways]
                addresses = [Address(url, revision=cid, has_facts=False) for url in urls]
                return WebSupply(
                    source,
                    in_turn(addresses, mismatches),
                    make_web,
                    judge,
                    self._limits.connections,
                    together=True,
                    spread=is_spread(mismatches),
                )

    def _local_files(self, pin: ModelPin) -> list[Path]:
        """Return the regular files of the pinned name that are not known to be of no use."""
        found: list[Path] = []
        if self._settings.import_dir is not None:
            candidate = self._settings.import_dir.expanduser() / pin.file_name
            identity = identity_of(candidate)
            if identity is not None and not self.wrong_files.has(candidate, identity):
                found.append(candidate)
        if self._settings.store_kind == "host":
            candidate = self._settings.store_root / pin.file_name
            identity = identity_of(candidate, follow=False)
            if identity is not None and not self.wrong_files.has(candidate, identity):
                found.append(candidate)
        return found
