"""Attacks on the pin by a service that was taken over, in a container's store: each has its uid and the store's group.

Compose mounts `trust/` read-only besides; here modes and owners stand alone. Every deed is shown to work where nothing
forbids it, so that what stops it is what these tests are about.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.acceptance.unpinned import pinned_for_now
from shared.store.layout import DOWNLOADER_UID, MINER_UID, VERIFIER_UID, StoreLayout
from shared.store.trust import read_trust
from tests.support.attacks import NEW, Running, sentence
from tests.support.geneses import DIGEST
from tests.support.genesis_host import Host, snapshot
from tests.support.service_user import errno_as

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another user's place is taken by root alone")

CONTAINER = {"R3MES_STORE_KIND": "container"}
SERVICES = {"downloader": DOWNLOADER_UID, "verifier": VERIFIER_UID, "miner": MINER_UID}

Act = Callable[[StoreLayout, Path], object]
"""What is done to a store; the path is a folder where everybody may write, on the same file system."""


def _opened(path: Path, flags: int, content: bytes = NEW) -> None:
    descriptor = os.open(path, flags)
    os.write(descriptor, content)
    os.close(descriptor)


def _own(folder: Path) -> Path:
    own = folder / f"own-{os.getpid()}"
    own.write_bytes(NEW)
    return own


def _through_proc(layout: StoreLayout, _: Path) -> None:
    with layout.genesis.open("rb") as file:
        _opened(Path(f"/proc/self/fd/{file.fileno()}"), os.O_WRONLY)


def _mapped(layout: StoreLayout, _: Path) -> None:
    descriptor = os.open(layout.genesis, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapped:
        mapped[0:1] = b"X"


def _trust_replaced(layout: StoreLayout, folder: Path) -> None:
    layout.trust.rename(folder / f"old-{os.getpid()}")
    layout.trust.mkdir()


DEEDS: dict[str, Act] = {
    "the accepted bytes overwritten": lambda layout, _: _opened(layout.genesis, os.O_WRONLY),
    "the accepted bytes emptied": lambda layout, _: _opened(layout.genesis, os.O_WRONLY | os.O_TRUNC),
    "a byte behind the accepted bytes": lambda layout, _: _opened(layout.genesis, os.O_WRONLY | os.O_APPEND, b"\n"),
    "the accepted bytes cut short": lambda layout, _: os.truncate(layout.genesis, 10),
    "the accepted bytes changed through /proc": _through_proc,
    "the accepted bytes changed in memory": _mapped,
    "another file renamed over the accepted one": lambda layout, folder: _own(folder).rename(layout.genesis),
    "the accepted copy removed": lambda layout, _: layout.genesis.unlink(),
    "the accepted copy made writable": lambda layout, _: layout.genesis.chmod(0o666),
    "the accepted copy taken over": lambda layout, _: os.chown(layout.genesis, DOWNLOADER_UID, -1),
    "the accepted copy's time set back": lambda layout, _: os.utime(layout.genesis, (1, 1)),
    "the record overwritten": lambda layout, _: _opened(layout.accepted, os.O_WRONLY, b"{}"),
    "another record renamed over it": lambda layout, folder: _own(folder).rename(layout.accepted),
    "the record removed": lambda layout, _: layout.accepted.unlink(),
    "a genesis staged": lambda layout, _: layout.next_genesis.write_bytes(NEW),
    "a genesis staged by a link": lambda layout, folder: os.link(_own(folder), layout.next_genesis),
    "a genesis staged by a symbolic link": lambda layout, folder: layout.next_genesis.symlink_to(_own(folder)),
    "trust/ made writable": lambda layout, _: layout.trust.chmod(0o777),
    "trust/ moved away and made anew": _trust_replaced,
    "the store's kind overwritten": lambda layout, _: _opened(layout.store_json, os.O_WRONLY, b"{}"),
    "the store's kind removed": lambda layout, _: layout.store_json.unlink(),
    "a new name in the store's root": lambda layout, _: (layout.root / "trust2").mkdir(),
}


def _locked(layout: StoreLayout, _: Path) -> None:
    descriptor = os.open(layout.trust_lock, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Intrusion:
    """A deed by the uid of one service."""

    attacks: str
    uid: int
    act: Act


CHANGES = [Intrusion(f"{what}, by the {who}", uid, act) for what, act in DEEDS.items() for who, uid in SERVICES.items()]
# The verifier may: it deletes what is not pinned, which no acceptance may come in between.
LOCKS = [
    Intrusion(f"an acceptance kept waiting for the lock, by the {who}", SERVICES[who], _locked)
    for who in ("downloader", "miner")
]
CASES = [*CHANGES, *LOCKS]


def container_store(folder: Path) -> Running:
    """Return what runs on a container's store, and make the folder where everybody may write."""
    folder.chmod(0o755)  # pytest's own are closed to others
    (folder / "scratch").mkdir()
    (folder / "scratch").chmod(0o777)
    return Running(Host(folder), **CONTAINER)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="r3mes-attacks-"))
    yield container_store(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("attack", CASES, ids=sentence)
def test_no_services_uid_can_change_what_is_accepted(running: Running, attack: Intrusion) -> None:
    layout = running.host.layout
    scratch = layout.root.parent / "scratch"
    before = snapshot(layout.root)

    stopped_by = errno_as(attack.uid, lambda: attack.act(layout, scratch))

    assert stopped_by in {errno.EACCES, errno.EPERM}, os.strerror(stopped_by)
    assert snapshot(layout.root) == before
    running.is_unmoved()


@pytest.mark.parametrize("what", DEEDS)
def test_where_nothing_forbids_it_the_same_deed_changes_the_store(tmp_path: Path, what: str) -> None:
    layout = container_store(tmp_path).host.layout
    before = snapshot(layout.root), layout.trust.stat()

    assert errno_as(0, lambda: DEEDS[what](layout, tmp_path / "scratch")) == 0
    assert (snapshot(layout.root), layout.trust.stat()) != before


def test_the_verifier_takes_the_lock_and_init_after_it(running: Running) -> None:
    layout = running.host.layout

    def deletes() -> None:
        with pinned_for_now(layout) as pinned:
            assert pinned == {DIGEST}

    assert errno_as(VERIFIER_UID, deletes) == 0
    running.host.start(**CONTAINER)
    assert errno_as(VERIFIER_UID, deletes) == 0


def test_a_lock_of_an_earlier_version_is_closed_to_others_by_the_next_start(tmp_path: Path) -> None:
    running = container_store(tmp_path)
    layout = running.host.layout
    os.chown(layout.trust_lock, 0, 0)
    layout.trust_lock.chmod(0o644)

    running.host.start(**CONTAINER)

    status = layout.trust_lock.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (VERIFIER_UID, 0, 0o400)


@pytest.mark.parametrize("uid", SERVICES.values(), ids=SERVICES)
def test_every_service_can_read_what_is_accepted(running: Running, uid: int) -> None:
    def reads() -> None:
        assert read_trust(running.host.layout).digests == {DIGEST}

    assert errno_as(uid, reads) == 0
