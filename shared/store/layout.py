"""Every path of the store, and the rights that belong to it (design §2). Pure: nothing here touches the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

STORE_FORMAT = 1
DIGEST = re.compile(r"[0-9a-f]{64}")

# One uid a service, one group for those who hand over incoming files; Redis's own is 10004.
DOWNLOADER_UID, VERIFIER_UID, MINER_UID, REDIS_UID = 10001, 10002, 10003, 10004
STORE_GID = 10000

VERIFIED_FILE_MODE = 0o444
INCOMING_FILE_MODE = 0o660
REJECTED_FILE_MODE = 0o640
PARTIAL_NOTE_MODE = 0o640
TRUST_FILE_MODE = 0o644
TRUST_LOCK_MODE = 0o400  # in a container store, where the verifier owns it


def is_digest(text: object) -> bool:
    """Tell whether `text` is 64 lower-case hex digits, the only names that the store uses for models."""
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class DirectoryRights:
    """A directory of the store relative to its root, with the owner, group and mode of the design's table."""

    name: str
    uid: int
    gid: int
    mode: int


DIRECTORIES = (
    DirectoryRights("trust", 0, 0, 0o755),
    DirectoryRights("incoming", DOWNLOADER_UID, STORE_GID, 0o2770),
    DirectoryRights("verified", VERIFIER_UID, STORE_GID, 0o2755),
    DirectoryRights("verified/.partial", VERIFIER_UID, STORE_GID, 0o2750),
    DirectoryRights("rejected", VERIFIER_UID, STORE_GID, 0o2750),
)
INCOMING_MODE = 0o2770
VERIFIED_MODE = 0o2755


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """Names of everything under one store root. `digest` arguments are 64 lower-case hex digits."""

    root: Path

    @property
    def store_json(self) -> Path:
        """`{format, kind}`: which kind of store this is."""
        return self.root / "store.json"

    @property
    def trust(self) -> Path:
        """What was accepted; read-only for every running service."""
        return self.root / "trust"

    @property
    def genesis(self) -> Path:
        """The accepted bytes of the operator's genesis."""
        return self.trust / "genesis.json"

    @property
    def accepted(self) -> Path:
        """`{sha256, accepted_at, signature}` of `genesis.json`, written after it."""
        return self.trust / "accepted.json"

    @property
    def next_genesis(self) -> Path:
        """The staged genesis, whose models are fetched and verified but not loaded."""
        return self.trust / "next.json"

    @property
    def trust_lock(self) -> Path:
        """Held (flock) by whoever accepts, and by whoever deletes what is not pinned."""
        return self.trust / ".lock"

    @property
    def incoming(self) -> Path:
        """Untrusted bytes on their way."""
        return self.root / "incoming"

    @property
    def verified(self) -> Path:
        """Complete files under their own digest."""
        return self.root / "verified"

    @property
    def partial(self) -> Path:
        """Named private copies, where unnamed ones are not to be had."""
        return self.verified / ".partial"

    @property
    def rejected(self) -> Path:
        """Why bytes were deleted."""
        return self.root / "rejected"

    def incoming_dir(self, digest: str) -> Path:
        """Directory of one download."""
        return self.incoming / digest

    def data(self, digest: str) -> Path:
        """The bytes of one download."""
        return self.incoming_dir(digest) / "data"

    def journal(self, digest: str) -> Path:
        """What of the bytes may be read and what is durable."""
        return self.incoming_dir(digest) / "journal.json"

    def lease(self, digest: str) -> Path:
        """Who is the one writer."""
        return self.incoming_dir(digest) / "lease.json"

    def control(self, digest: str) -> Path:
        """The operator's wish, attempts, reason and next attempt."""
        return self.incoming_dir(digest) / "control.json"

    def partial_file(self, digest: str) -> Path:
        """The verifier's growing copy in low-space mode, the only place of the bytes that incoming has given up."""
        return self.partial / digest

    def partial_note(self, digest: str) -> Path:
        """`{version, generation, durable}` of that copy: how far incoming may be punched, and the downloader ahead."""
        return self.partial / f"{digest}.json"

    def verified_dir(self, digest: str) -> Path:
        """Directory of one verified model."""
        return self.verified / digest

    def verified_file(self, digest: str, file_name: str) -> Path:
        """The one GGUF that may be loaded for `digest`."""
        return self.verified_dir(digest) / file_name

    def receipt(self, digest: str) -> Path:
        """The hint that saves hashing the verified file again."""
        return self.verified_dir(digest) / "receipt.json"

    def unpinned_note(self, digest: str) -> Path:
        """The verifier's note beside a verified file that no genesis pins any more: since when."""
        return self.verified_dir(digest) / "unpinned.json"

    def rejected_file(self, digest: str, number: int) -> Path:
        """The `number`-th record of deleted bytes of `digest`."""
        return self.rejected / f"{digest}-{number}.json"
