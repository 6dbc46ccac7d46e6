"""What each service's user may do in a container's store, and what modes and owners forbid it.

Only owners and modes are at work here; in the stack the mounts of docker-compose.yml forbid as much once more, and
`tests/unit/test_compose_file.py` holds those. Every deed is tried by all three users: by those who may, on a store of
its own each time; by the others, on one that all share, since not a byte of it may change.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.credentials import ACL_FILE, REDIS, URL_FILE
from services.miner.model.check import CheckedModel, Rehash, check
from shared.errors import IntegrityError
from shared.genesis import ModelPin
from shared.store.layout import VERIFIER_UID
from shared.store.records import Receipt, StatIdentity
from shared.store.trust import read_trust
from tests.support.service_store import USERS, ServiceStore
from tests.support.unprivileged import errno_as, open_directory
from tests.unit.miner.gguf_bytes import gguf

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes the places of other users: needs root")

CONTENT = gguf()
NEVER = threading.Event()
FORBIDDEN = {errno.EACCES, errno.EPERM}

NOBODY: tuple[str, ...] = ()
EVERYBODY = ("downloader", "verifier", "miner")
DOWNLOADER, VERIFIER, BOTH = ("downloader",), ("verifier",), ("downloader", "verifier")

Path_ = Callable[[ServiceStore], Path]


def read(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).read_bytes()


def listed(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: list(path(at).iterdir())


def written(path: Path_) -> Callable[[ServiceStore], object]:
    """Return what opens a file that is there for writing, and writes."""

    def write(at: ServiceStore) -> None:
        with path(at).open("r+b") as file:
            file.write(b"?")

    return write


def truncated(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: os.truncate(path(at), 0)


def made(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).touch(exist_ok=False)


def made_directory(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).mkdir()


def replaced(path: Path_) -> Callable[[ServiceStore], object]:
    """Return what renames a file of one's own into another's place."""

    def replace(at: ServiceStore) -> None:
        mine = at.own / "mine"
        with suppress(FileNotFoundError):
            mine.unlink()
        mine.write_bytes(b"mine")
        try:
            mine.rename(path(at))
        finally:
            mine.unlink(missing_ok=True)

    return replace


def linked(path: Path_) -> Callable[[ServiceStore], object]:
    """Return what puts a symbolic link to something of one's own under a name."""
    return lambda at: path(at).symlink_to(at.own)


def removed(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).unlink()


def moved(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).rename(path(at).with_name("moved"))


def opened_to_all(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: path(at).chmod(0o777)


def taken_over(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: os.chown(path(at), os.getuid(), os.getgid())


def dated_back(path: Path_) -> Callable[[ServiceStore], object]:
    return lambda at: os.utime(path(at), (0, 0))


def secret(service: str, file: str = URL_FILE) -> Path_:
    return lambda at: at.credentials / service / file


def record(at: ServiceStore) -> Path:
    return at.layout.rejected_file(at.refused, 1)


def receipt(at: ServiceStore) -> Path:
    return at.layout.receipt(at.served)


def data(at: ServiceStore) -> Path:
    return at.layout.data(at.coming)


# What is done, and by whom it may be.
DEEDS: dict[str, tuple[Callable[[ServiceStore], object], tuple[str, ...]]] = {
    "read the accepted genesis": (lambda at: read_trust(at.layout), EVERYBODY),
    "write to the accepted genesis": (written(lambda at: at.layout.genesis), NOBODY),
    "truncate the accepted genesis": (truncated(lambda at: at.layout.genesis), NOBODY),
    "rename another genesis into its place": (replaced(lambda at: at.layout.genesis), NOBODY),
    "remove the accepted genesis": (removed(lambda at: at.layout.genesis), NOBODY),
    "open the accepted genesis to all": (opened_to_all(lambda at: at.layout.genesis), NOBODY),
    "take over the accepted genesis": (taken_over(lambda at: at.layout.genesis), NOBODY),
    "date the accepted genesis back": (dated_back(lambda at: at.layout.genesis), NOBODY),
    "write to accepted.json": (written(lambda at: at.layout.accepted), NOBODY),
    "remove accepted.json": (removed(lambda at: at.layout.accepted), NOBODY),
    "stage a genesis": (made(lambda at: at.layout.next_genesis), NOBODY),
    "put another file into trust/": (made(lambda at: at.layout.trust / "other.json"), NOBODY),
    "open trust/ to all": (opened_to_all(lambda at: at.layout.trust), NOBODY),
    "move trust/ away": (moved(lambda at: at.layout.trust), NOBODY),
    "write to store.json": (written(lambda at: at.layout.store_json), NOBODY),
    "put a link beside the store's directories": (linked(lambda at: at.layout.root / "tiny.gguf"), NOBODY),
    "look into incoming/": (listed(lambda at: at.layout.incoming), BOTH),
    "read bytes that came": (read(data), BOTH),
    "write to bytes that came": (written(data), BOTH),
    "claim bytes that came": (moved(data), BOTH),
    "begin a download": (made_directory(lambda at: at.layout.incoming_dir("a" * 64)), BOTH),
    "put a link into incoming/": (linked(lambda at: at.layout.incoming_dir("a" * 64)), BOTH),
    "open bytes that came to all": (opened_to_all(data), DOWNLOADER),
    "open incoming/ to all": (opened_to_all(lambda at: at.layout.incoming), DOWNLOADER),
    "read a verified file": (read(lambda at: at.model), EVERYBODY),
    "read a receipt": (read(receipt), EVERYBODY),
    "write to a verified file as it is": (written(lambda at: at.model), NOBODY),
    "open a verified file to all": (opened_to_all(lambda at: at.model), VERIFIER),
    "date a verified file back": (dated_back(lambda at: at.model), VERIFIER),
    "rename another file into the place of a verified one": (replaced(lambda at: at.model), VERIFIER),
    "remove a verified file": (removed(lambda at: at.model), VERIFIER),
    "rename another receipt into its place": (replaced(receipt), VERIFIER),
    "remove a receipt": (removed(receipt), VERIFIER),
    "make a directory in verified/": (made_directory(lambda at: at.layout.verified_dir("a" * 64)), VERIFIER),
    "put a file into verified/": (made(lambda at: at.layout.verified / "wrong.gguf"), VERIFIER),
    "move a verified model away": (moved(lambda at: at.layout.verified_dir(at.served)), VERIFIER),
    "open verified/ to all": (opened_to_all(lambda at: at.layout.verified), VERIFIER),
    "see how much of a partial is durable": (read(lambda at: at.layout.partial_note(at.growing)), BOTH),
    "say how much of a partial is durable": (replaced(lambda at: at.layout.partial_note(at.growing)), VERIFIER),
    "read a partial": (read(lambda at: at.layout.partial_file(at.growing)), VERIFIER),
    "write to a partial": (written(lambda at: at.layout.partial_file(at.growing)), VERIFIER),
    "read why bytes were deleted": (read(record), BOTH),
    "write why bytes were deleted": (written(record), VERIFIER),
    "remove a record of deleted bytes": (removed(record), VERIFIER),
    "make a record of deleted bytes": (made(lambda at: at.layout.rejected_file(at.refused, 2)), VERIFIER),
    "open rejected/ to all": (opened_to_all(lambda at: at.layout.rejected), VERIFIER),
    "read the downloader's password": (read(secret("downloader")), DOWNLOADER),
    "read the verifier's password": (read(secret("verifier")), VERIFIER),
    "read the rights of Redis": (read(secret(REDIS, ACL_FILE)), NOBODY),
    "rename other rights of Redis into their place": (replaced(secret(REDIS, ACL_FILE)), NOBODY),
    "put a password of one's own there": (replaced(secret("verifier")), NOBODY),
}
CASES = [(service, what, service in may) for what, (_deed, may) in DEEDS.items() for service in EVERYBODY]
ALLOWED = [(service, what) for service, what, may in CASES if may]
REFUSED = [(service, what) for service, what, may in CASES if not may]


@pytest.fixture(scope="module")
def shared_store() -> Iterator[ServiceStore]:
    with open_directory() as home:
        yield ServiceStore(home, CONTENT)


@pytest.fixture
def store() -> Iterator[ServiceStore]:
    with open_directory() as home:
        yield ServiceStore(home, CONTENT)


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Return every name under `root` with its kind, mode, owner, times and bytes."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns, content)
    return found


@pytest.mark.parametrize(("service", "what"), REFUSED, ids=lambda value: str(value).replace(" ", "_"))
def test_what_a_service_may_not_do_is_refused_and_changes_nothing(
    shared_store: ServiceStore, service: str, what: str
) -> None:
    places = (shared_store.layout.root, shared_store.credentials)
    before = [state(place) for place in places]

    assert errno_as(USERS[service], lambda: DEEDS[what][0](shared_store)) in FORBIDDEN

    assert [state(place) for place in places] == before


@pytest.mark.parametrize(("service", "what"), ALLOWED, ids=lambda value: str(value).replace(" ", "_"))
def test_what_a_service_may_do_it_can(store: ServiceStore, service: str, what: str) -> None:
    assert errno_as(USERS[service], lambda: DEEDS[what][0](store)) == 0


def pin(at: ServiceStore) -> ModelPin:
    return next(pin for pin in read_trust(at.layout).genesis.models if pin.sha256 == at.served)


def checked(at: ServiceStore, rehash: Rehash) -> CheckedModel:
    return check(at.layout, pin(at), rehash, NEVER)


def test_what_the_verifier_promoted_passes_the_miner_s_check_in_its_own_place(shared_store: ServiceStore) -> None:
    """All the way: fetched by one user, judged by another, checked by the third."""
    status = shared_store.model.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (VERIFIER_UID, 0o444)
    assert shared_store.model.read_bytes() == CONTENT
    for rehash in ("changed", "always"):
        assert errno_as(USERS["miner"], lambda rehash=rehash: checked(shared_store, rehash).close()) == 0  # type: ignore[misc]


def lie(at: ServiceStore) -> None:
    """Put other bytes under the verified name, with a receipt that fits them."""
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    at.model.unlink()
    at.model.write_bytes(wrong)
    Receipt(
        sha256=at.served,
        size=len(wrong),
        file_name=at.model.name,
        source=None,
        revision="",
        verified_at=time.time(),
        verifier="a liar",
        genesis_sha256=read_trust(at.layout).genesis.sha256,
        st=StatIdentity.of(at.model.stat()),
    ).write(receipt(at))


def test_a_verifier_that_lies_is_believed_by_a_miner_that_trusts_receipts(store: ServiceStore) -> None:
    """Where trust ends: the miner's default believes a receipt that fits, `R3MES_MINER_REHASH=always` none."""
    store.do("verifier", lambda: lie(store))

    model = checked(store, "changed")
    assert not model.rehashed
    assert os.pread(model.descriptor, len(CONTENT), 0) != CONTENT
    model.close()

    with pytest.raises(IntegrityError, match="the genesis pins"):
        checked(store, "always")
