"""A download under way, as the downloader leaves it on the disk: data, lease, and a journal that grows."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from shared.store.records import Journal, Lease
from tests.support.verifier_store import Store, sha256_of

MIB = 1024 * 1024


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Download:
    """One generation of `content`, of which nothing has come yet. `digest`: what it is said to be."""

    def __init__(self, store: Store, content: bytes, digest: str | None = None, *, mode: str = "normal") -> None:
        self.store = store
        self.content = content
        self.digest = digest or sha256_of(content)
        self.mode = mode
        self.generation = secrets.token_hex(16)
        self.instance = secrets.token_hex(16)
        self.received = 0
        self._tokens = 0
        self.store.layout.incoming_dir(self.digest).mkdir(exist_ok=True)
        data = store.layout.data(self.digest)
        data.unlink(missing_ok=True)
        with data.open("xb") as file:
            file.truncate(len(content))
        self.renew()

    def renew(self, **changes: object) -> None:
        """Renew the lease."""
        self._tokens += 1
        fields: dict[str, object] = {
            "host": "here",
            "boot_id": boot_id(),
            "pid_namespace": "pid:[1]",
            "pid": 1,
            "instance": self.instance,
            "token": 1,
            "renewed_at": float(self._tokens),
            **changes,
        }
        Lease.model_validate(fields).write(self.store.layout.lease(self.digest))

    def receive(self, until: int, *, durable: bool = False, announce: bool = True, **changes: object) -> None:
        """Write the content up to byte `until`, and announce it."""
        descriptor = os.open(self.store.layout.data(self.digest), os.O_WRONLY)
        os.pwrite(descriptor, self.content[self.received : until], self.received)
        os.close(descriptor)
        self.received = until
        if announce:
            self.announce(ranges=((0, until),) if durable and until else (), **changes)

    def announce(self, **changes: object) -> Journal:
        """Write the journal."""
        fields: dict[str, object] = {
            "size": len(self.content),
            "generation": self.generation,
            "instance": self.instance,
            "mode": self.mode,
            "prefix": self.received,
            "ranges": (),
            "complete": False,
            "updated_at": time.time(),
            **changes,
        }
        return self.store.write_journal(self.digest, **fields)

    def complete(self) -> None:
        """Write what is left, and say that it is complete and durable."""
        size = len(self.content)
        self.receive(size, announce=False)
        self.announce(prefix=size, ranges=((0, size),), complete=True)
