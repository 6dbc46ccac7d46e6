"""Hostile jobs and hostile downloads, at the real verifier over a real Redis.

Of each case nothing runs and nothing is promoted, the process lives, and exactly one counter goes up by one (of wrong
bytes that were judged, also that of their deletion).
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from shared.queue import FUNCTION, VerifyQueue
from shared.redis_link import RedisLink
from tests.faults.verifier.test_forged_jobs import job, packed
from tests.support.redis_server import RedisServer
from tests.support.verifier_process import VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow]

RIGHT = os.urandom(10_000)
DIGEST = sha256_of(RIGHT)
GOOD_ID = f"verify-local_{DIGEST}_1"
RIGHT_JOB = packed([FUNCTION, None, [DIGEST], {}])
COUNTERS = ("r3mes_jobs_refused", "r3mes_verifications", "r3mes_promotions", "r3mes_deletions")
Counts = dict[str, float]


def refused(reason: str) -> Counts:
    return {f"r3mes_jobs_refused_total {reason}": 1}


ERROR: Counts = {"r3mes_verifications_total error": 1}
MISMATCH: Counts = {"r3mes_verifications_total mismatch": 1, "r3mes_deletions_total mismatch": 1}


@dataclass
class Scene:
    """The process under attack; `marker` is what an attack that runs leaves behind, `hook` where one would call."""

    store: Store
    verifier: VerifierProcess
    redis: redis.Redis
    queue: VerifyQueue
    outside: Path
    hook: socket.socket

    @property
    def marker(self) -> Path:
        return self.outside / "ran"

    @property
    def hook_url(self) -> str:
        return f"http://127.0.0.1:{self.hook.getsockname()[1]}/"

    def counts(self) -> Counts:
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(self.verifier.get("/metrics")[1])
            if family.name in COUNTERS
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def went_up(self, before: Counts) -> Counts:
        return {name: count - before[name] for name, count in self.counts().items() if count != before[name]}

    def holds(self, before: Counts, expected: Counts) -> None:
        """Wait for the counters; then nothing else may have happened."""
        wait_until(lambda: self.went_up(before) == expected, what=f"{expected}")
        wait_until(self.is_idle, what="the queue to be empty")
        assert self.went_up(before) == expected
        assert self.store.verified_names(DIGEST) == []
        assert not self.marker.exists()
        with pytest.raises(BlockingIOError):
            self.hook.accept()
        assert self.verifier.process.poll() is None
        assert self.verifier.get("/readyz")[0] == 200

    def is_idle(self) -> bool:
        counts = self.queue.counts()
        return counts["queued"] == counts["started"] == 0

    def clear(self) -> None:
        for path in self.store.layout.rejected.iterdir():
            path.unlink()
        directory = self.store.layout.incoming_dir(DIGEST)
        if directory.is_symlink():
            directory.unlink()
        with suppress(FileNotFoundError):
            for path in directory.iterdir():
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            directory.rmdir()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One verifier and one Redis for all cases: it has to live through all of them."""
    folder = tmp_path_factory.mktemp("hostile")
    outside = folder / "outside"
    outside.mkdir()
    store = Store.make(folder / "models", entry(RIGHT))
    with RedisServer(folder) as server, socket.create_server(("127.0.0.1", 0)) as hook:
        hook.setblocking(False)
        verifier = VerifierProcess(store, server.url, folder)
        link = RedisLink(server.url)
        try:
            verifier.wait_until_ready()
            with redis.Redis.from_url(server.url) as client:
                yield Scene(store, verifier, client, VerifyQueue(link, "local"), outside, hook)
            assert "Traceback" not in verifier.log()
        finally:
            link.close()
            verifier.kill()


@pytest.fixture
def attacked(scene: Scene) -> Iterator[Scene]:
    scene.clear()
    yield scene
    scene.clear()


def call(function: str, argument: str) -> bytes:
    return packed([function, None, [argument], {}])


Forged = Callable[[Scene], tuple[str, Mapping[str, bytes | str]]]
JOBS: dict[str, tuple[Forged, Counts]] = {
    "os.system": (lambda at: (GOOD_ID, job(call("os.system", f"touch {at.marker}"))), refused("data")),
    "a callback": (lambda _: (GOOD_ID, job(RIGHT_JOB, success_callback_name="os.system")), refused("field")),
    "a webhook": (
        lambda at: (
            GOOD_ID,
            job(RIGHT_JOB, webhooks=json.dumps([{"url": at.hook_url, "job_status": "finished"}])),
        ),
        refused("field"),
    ),
    "a path": (lambda at: (GOOD_ID, job(call(FUNCTION, str(at.outside / "file")))), refused("data")),
    "a digest with ../": (lambda _: (GOOD_ID, job(call(FUNCTION, f"../{DIGEST[3:]}"))), refused("data")),
    "a digest with ../ in its id": (
        lambda _: (f"verify-local_../{DIGEST[3:]}_1", job(call(FUNCTION, f"../{DIGEST[3:]}"))),
        refused("id"),
    ),
    "63 digits": (lambda _: (GOOD_ID, job(call(FUNCTION, DIGEST[:-1]))), refused("data")),
    "63 digits in its id": (
        lambda _: (f"verify-local_{DIGEST[:-1]}_1", job(call(FUNCTION, DIGEST[:-1]))),
        refused("id"),
    ),
    "a digest that nobody pins": (
        lambda _: (f"verify-local_{'a' * 64}_1", job(call(FUNCTION, "a" * 64))),
        refused("not_pinned"),
    ),
}


@pytest.mark.parametrize("what", JOBS)
def test_a_hostile_job_does_nothing_and_is_counted_once(attacked: Scene, what: str) -> None:
    forge, expected = JOBS[what]
    job_id, fields = forge(attacked)
    before = attacked.counts()
    attacked.redis.delete(f"rq:job:{job_id}")  # what an earlier case left
    attacked.redis.hset(f"rq:job:{job_id}", mapping=dict(fields))
    attacked.redis.rpush("rq:queue:verify:local", job_id)
    attacked.holds(before, expected)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def linked_directory(at: Scene) -> None:
    directory = at.store.layout.incoming_dir(DIGEST)
    moved = at.outside / "directory"
    for path in moved.iterdir() if moved.exists() else ():
        path.unlink()
    moved.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.rename(moved / path.name)
    directory.rmdir()
    directory.symlink_to(moved)


def elsewhere(at: Scene) -> Path:
    """A file with the right bytes, outside of the store."""
    path = at.outside / "right"
    path.write_bytes(RIGHT)
    return path


def data(make: Callable[[Scene, Path], object]) -> Callable[[Scene], None]:
    """Return what puts something else in the place of the data, whose journal fits as far as it can."""

    def arrange(at: Scene) -> None:
        path = at.store.layout.data(DIGEST)
        replaced(path, lambda where: make(at, where))
        if not path.is_symlink():
            at.store.write_journal(DIGEST, size=len(RIGHT))

    return arrange


def journal(content: bytes | None = None, *, bytes_: bytes = RIGHT, **changes: object) -> Callable[[Scene], None]:
    """Return what puts these bytes there, with a journal that lies about them."""

    def arrange(at: Scene) -> None:
        at.store.put(DIGEST, bytes_)
        if content is not None:
            at.store.layout.journal(DIGEST).write_bytes(content)
        else:
            at.store.write_journal(DIGEST, **{"size": len(RIGHT), **changes})

    return arrange


def journal_file(make: Callable[[Scene, Path], object]) -> Callable[[Scene], None]:
    """Return what puts something else in the place of the journal."""
    return lambda at: replaced(at.store.layout.journal(DIGEST), lambda where: make(at, where))


def linked_journal(at: Scene, where: Path) -> None:
    right = at.store.write_journal(DIGEST, size=len(RIGHT))
    where.unlink()
    right.write(at.outside / "journal.json")
    where.symlink_to(at.outside / "journal.json")


DEVICE = 0o666 | stat.S_IFCHR
WRONG = b"?" + RIGHT[1:]
DOWNLOADS: dict[str, tuple[Callable[[Scene], object], Counts]] = {
    "a symlink": (data(lambda at, path: path.symlink_to(elsewhere(at))), ERROR),
    "a FIFO": (data(lambda _, path: os.mkfifo(path)), ERROR),
    "a device": (data(lambda _, path: os.mknod(path, DEVICE, os.makedev(1, 5))), ERROR),
    "a hard link": (data(lambda at, path: path.hardlink_to(elsewhere(at))), ERROR),
    "a directory": (data(lambda _, path: path.mkdir()), ERROR),
    "a socket": (data(lambda _, path: os.mknod(path, 0o666 | stat.S_IFSOCK)), ERROR),
    "a linked directory": (linked_directory, ERROR),
    "a journal of another inode": (journal(ino=1), ERROR),
    "a journal of another digest": (journal(sha256="b" * 64), ERROR),
    "a journal of deep JSON": (journal(b"[" * 60_000), ERROR),
    "a journal that is too long": (journal(b" " * 70_000), ERROR),
    "a journal beyond its own size": (journal(b'{"version": 1, "prefix": 9e99}'), ERROR),
    "a journal that is a link": (journal_file(linked_journal), ERROR),
    "a journal that is a FIFO": (journal_file(lambda _, path: os.mkfifo(path)), ERROR),
    "a journal of more bytes than there are": (journal(bytes_=RIGHT[:-1]), MISMATCH),
    "a journal of fewer bytes than there are": (journal(bytes_=RIGHT + b"?"), MISMATCH),
    "a journal that calls wrong bytes complete": (journal(bytes_=WRONG), MISMATCH),
    "wrong bytes in low-space mode": (journal(bytes_=WRONG, mode="low-space"), MISMATCH),
    "a size beyond all disks": (journal(bytes_=WRONG, size=2**62), MISMATCH),
}


@pytest.mark.parametrize("what", DOWNLOADS)
def test_a_hostile_download_is_not_promoted_and_is_counted_once(attacked: Scene, what: str) -> None:
    if what == "a device" and os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    arrange, expected = DOWNLOADS[what]
    attacked.store.put(DIGEST, RIGHT, complete=False)  # the follower takes no notice of what is not announced
    arrange(attacked)
    before = attacked.counts()
    assert attacked.queue.enqueue(DIGEST)
    attacked.holds(before, expected)
    records = len(list(attacked.store.layout.rejected.iterdir()))
    assert records == (1 if expected is MISMATCH else 0)
    outside = attacked.outside / "right"
    assert not outside.exists() or outside.read_bytes() == RIGHT


def test_after_all_of_that_right_work_is_done(attacked: Scene) -> None:
    attacked.store.put(DIGEST, RIGHT)
    attacked.queue.enqueue(DIGEST)
    wait_until(lambda: attacked.store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"], what="the verdict")
    assert attacked.verifier.terminate() == 0
