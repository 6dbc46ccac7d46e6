"""A container's store as `init` makes it and each service fills it, every one of them as its own user. Needs root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from launcher.credentials import prepare_credentials
from services.verifier.run_once import Outcome, verify_once
from shared.store.layout import DOWNLOADER_UID, MINER_UID, STORE_GID, VERIFIER_UID, StoreLayout
from shared.store.records import PartialNote
from tests.support.geneses import list_form
from tests.support.genesis_host import Host
from tests.support.unprivileged import User, errno_as
from tests.support.verifier_store import Store, entry, sha256_of

USERS = {
    "downloader": User(DOWNLOADER_UID, STORE_GID, 0o007),
    "verifier": User(VERIFIER_UID, STORE_GID, 0o022),
    "miner": User(MINER_UID, MINER_UID, 0o007),
}


class ServiceStore:
    """Four digests: `served` is verified, `coming` lies in incoming, `growing` is a partial, `refused` was rejected."""

    def __init__(self, home: Path, content: bytes) -> None:
        self.home, self.content = home, content
        contents = {"tiny": content, "coming": os.urandom(5_000), "growing": b"growing", "refused": b"refused"}
        self.served, self.coming, self.growing, self.refused = map(sha256_of, contents.values())
        host = Host(home)
        host.file.write_bytes(list_form(*(entry(content_of, name) for name, content_of in contents.items())))
        host.start(R3MES_STORE_KIND="container")
        self.layout: StoreLayout = host.layout
        self.credentials = home / "credentials"
        self.credentials.mkdir()
        prepare_credentials(self.credentials, "local", given=False)
        self.own = home / "own"  # what anybody makes of their own
        self.own.mkdir()
        self.own.chmod(0o1777)
        self.do("downloader", lambda: self._download(contents["coming"]))
        self.do("verifier", self._verify)

    @property
    def model(self) -> Path:
        """The verified file."""
        return self.layout.verified_file(self.served, "tiny.gguf")

    def do(self, service: str, deed: Callable[[], object]) -> None:
        """Do as `service` what it must be able to do."""
        assert errno_as(USERS[service], deed) == 0, f"{service} cannot do its work"

    def _download(self, coming: bytes) -> None:
        store = Store(self.layout)
        store.put(self.served, self.content)
        store.put(self.refused, b"something else")
        store.put(self.coming, coming, complete=False)

    def _verify(self) -> None:
        found = [verify_once(self.layout, digest) for digest in (self.served, self.refused)]
        if found != [Outcome.PROMOTED, Outcome.REJECTED]:
            raise AssertionError(found)
        self._begin_partial()

    def _begin_partial(self) -> None:
        with open(os.open(self.layout.partial_file(self.growing), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(b"grow")
        PartialNote(generation="0" * 32, durable=4).write(self.layout.partial_note(self.growing))
