"""A store as init and the downloader leave it, for the verifier to work on; and the invariant to hold it to."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from shared.states import Source
from shared.store.atomic import replace_bytes
from shared.store.layout import DIRECTORIES, StoreLayout
from shared.store.records import AcceptedDocument, Journal, StoreDocument

CHUNK = 1 << 20


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(content_or_digest: bytes | str, name: str = "tiny", **changes: object) -> dict[str, object]:
    digest = content_or_digest if isinstance(content_or_digest, str) else sha256_of(content_or_digest)
    return {
        "model_name": name,
        "file_name": f"{name}.gguf",
        "download_source": f"https://huggingface.co/org/{name}/resolve/main/{name}.gguf",
        "verification_sha256": digest,
        "required_disk_space_gb": 1.0,
        "ipfs_fallback_hash": "",
        **changes,
    }


@dataclass(frozen=True)
class Store:
    layout: StoreLayout

    @classmethod
    def make(cls, root: Path, *entries: dict[str, object]) -> Store:
        """Make a host's store in which the genesis of `entries` is accepted."""
        store = cls(StoreLayout(root))
        for rights in DIRECTORIES:
            (root / rights.name).mkdir(parents=True, exist_ok=True)
            (root / rights.name).chmod(rights.mode)
        store.accept(*entries)
        StoreDocument(kind="host").write(store.layout.store_json)
        return store

    def accept(self, *entries: dict[str, object]) -> None:
        raw = json.dumps({"models": list(entries)}).encode()
        replace_bytes(self.layout.genesis, raw, mode=0o644)
        accepted = AcceptedDocument(sha256=sha256_of(raw), accepted_at=time.time())
        accepted.write(self.layout.accepted)

    def put(self, digest: str, content: bytes, **journal: object) -> Journal:
        """Leave `content` in incoming for `digest`, complete and with a journal that says so."""
        directory = self.layout.incoming_dir(digest)
        directory.mkdir(exist_ok=True)
        data = self.layout.data(digest)
        data.unlink(missing_ok=True)
        data.write_bytes(content)
        return self.write_journal(digest, **{"size": max(1, len(content)), **journal})

    def write_journal(self, digest: str, **changes: object) -> Journal:
        size = changes.get("size", 1)
        fields: dict[str, object] = {
            "sha256": digest,
            "size": size,
            "generation": secrets.token_hex(16),
            "ino": self.layout.data(digest).stat().st_ino,
            "instance": secrets.token_hex(16),
            "source": Source.HUGGINGFACE,
            "url": "https://huggingface.co/org/tiny/resolve/main/tiny.gguf",
            "revision": "main",
            "prefix": size,
            "ranges": ((0, size),),
            "complete": True,
            "updated_at": time.time(),
            **changes,
        }
        journal = Journal.model_validate(fields)
        journal.write(self.layout.journal(digest))
        return journal

    def verified_names(self, digest: str) -> list[str]:
        directory = self.layout.verified_dir(digest)
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []

    def wrong_verified_files(self) -> list[Path]:
        """I1: every `verified/<64 hex>/*.gguf` has its directory's SHA-256. Return those that have not."""
        return [path for path in self.layout.verified.glob("*/*.gguf") if hash_of_file(path) != path.parent.name]

    def holds(self, digest: str, file_name: str = "tiny.gguf") -> bool:
        """I2: whether the right bytes are the verified name's or incoming's, under its own name or a claimed one."""
        kept = [self.layout.verified_file(digest, file_name), *self.layout.incoming_dir(digest).glob("[.d]*")]
        return any(path.is_file() and hash_of_file(path) == digest for path in kept)


def hash_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
