"""Where a file system shares extents the copy is a clone: real XFS and btrfs; ext4 and tmpfs write as before."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import cloned_copy
from services.verifier.cloned_copy import ClonedCopy, open_cloned_copy
from services.verifier.follower import STEP_BYTES, Follower
from services.verifier.linux import clone_range
from services.verifier.low_space import LowSpaceCopy
from services.verifier.private_copy import OnBytes
from services.verifier.progress import SilentObserver
from services.verifier.verification import Outcome
from shared.hints import RedisHints
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.store.records import RejectedRecord
from shared.store.verified import has_right_receipt
from tests.support.log_reader import LogReader
from tests.support.reflink_disk import SHARING, disk_of, free_bytes, shared_bytes
from tests.support.slow_download import Download
from tests.support.small_disk import small_disk
from tests.support.verifier_process import StartVerifier
from tests.support.verifier_stand import flip, make_verifier
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

MIB = 1024 * 1024
CONTENT = os.urandom(8 * MIB + 12_345)
DIGEST = sha256_of(CONTENT)
BLOCK_BYTES = 4096
A_LITTLE = MIB  # what a file system may need for its own notes


class Listener(SilentObserver):
    """Keeps what others are told of the room that copies take."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def watch_copy(
        self, digest: str, generation: str, size: int, *, unnamed_bytes: int
    ) -> AbstractContextManager[OnBytes]:
        self.told.append(unnamed_bytes)
        return super().watch_copy(digest, generation, size, unnamed_bytes=unnamed_bytes)


class Stand:
    """A store on a disk of its own, its verifier, and who listens to it."""

    def __init__(self, disk: Path, content: bytes = CONTENT) -> None:
        self.disk = disk
        self.content = content
        self.digest = sha256_of(content)
        self.store = Store.make(disk / "models", entry(content, size_bytes=len(content)))
        self.listener = Listener()
        self.verifier = make_verifier(self.store, CollectorRegistry())
        self.verifier.copies._observer = self.listener

    @property
    def verified(self) -> Path:
        return self.store.layout.verified_file(self.digest, "tiny.gguf")

    def assert_verified(self) -> None:
        assert self.verified.read_bytes() == self.content
        assert has_right_receipt(self.store.layout, self.digest, "tiny.gguf") is not None
        assert not self.store.layout.data(self.digest).exists()
        assert list(self.store.layout.partial.iterdir()) == []


@pytest.fixture(params=SHARING)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with disk_of(request.param, tmp_path) as disk:
        stand = Stand(disk)
        yield stand
        stand.verifier.copies.drop(stand.digest)
        stand.verifier.copies.partials.release()  # else the disk is in use


def shared_with_incoming(stand: Stand) -> int:
    begun = stand.verifier.copies.get(stand.digest)
    return shared_bytes(begun.copy.descriptor) if begun is not None else 0


def the_record(stand: Stand) -> RejectedRecord:
    (name,) = stand.store.layout.rejected.iterdir()
    record = RejectedRecord.read(name)
    assert record is not None
    return record


def after_cloning(monkeypatch: pytest.MonkeyPatch, action: Callable[[int], object]) -> list[int]:
    """Call `action` with the source after each clone and before it is hashed; return the ends of the clones."""
    ends: list[int] = []

    def clone(source: int, target: int, offset: int, length: int) -> None:
        clone_range(source, target, offset, length)
        if length <= BLOCK_BYTES:
            return  # only to find out whether it can be done
        ends.append(offset + length)
        writable = os.open(f"/proc/self/fd/{source}", os.O_RDWR)
        action(writable)
        os.close(writable)

    monkeypatch.setattr(cloned_copy, "clone_range", clone)
    return ends


def test_a_complete_file_is_promoted_as_a_clone_that_takes_no_room(stand: Stand) -> None:
    stand.store.put(DIGEST, CONTENT)
    held = os.open(stand.store.layout.data(DIGEST), os.O_RDONLY)  # else it is gone afterwards, and nothing is shared
    before = free_bytes(stand.disk)
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    assert before - free_bytes(stand.disk) < A_LITTLE
    with stand.verified.open("rb") as verified:
        assert shared_bytes(verified.fileno()) >= len(CONTENT)
        assert os.fstat(verified.fileno()).st_size == len(CONTENT)
    stand.assert_verified()
    assert stand.listener.told == [0]
    os.close(held)


def test_a_follower_clones_what_is_announced_step_by_step(stand: Stand) -> None:
    follower = Follower(stand.verifier)
    download = Download(stand.store, CONTENT)
    for number in range(1, len(CONTENT) // STEP_BYTES + 1):
        download.receive(number * STEP_BYTES + 77)
        follower.step(DIGEST)
        begun = stand.verifier.copies.get(DIGEST)
        assert begun is not None
        assert isinstance(begun.copy, ClonedCopy)
        assert begun.copy.hashing.done == shared_with_incoming(stand) == number * STEP_BYTES
    download.complete()
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    stand.assert_verified()
    assert stand.listener.told == [0], "one copy, begun by the follower and finished by the job"


def test_what_happens_to_the_source_after_the_clone_does_not_matter(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(source: int) -> None:
        os.pwrite(source, b"overwritten", 5)
        os.pwrite(source, b"overwritten", len(CONTENT) - 3)
        os.ftruncate(source, 9)

    ends = after_cloning(monkeypatch, spoil)
    stand.store.put(DIGEST, CONTENT)
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    assert ends == [len(CONTENT)]
    stand.assert_verified()


def test_nor_does_it_while_a_download_is_followed(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = after_cloning(monkeypatch, lambda source: os.pwrite(source, b"overwritten", MIB - 3))
    download = Download(stand.store, CONTENT)
    download.receive(8 * MIB)
    Follower(stand.verifier).step(DIGEST)
    download.complete()
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    assert ends == [8 * MIB, len(CONTENT)]
    stand.assert_verified()


def test_bytes_that_were_wrong_when_cloned_are_rejected_though_they_are_put_right_before_they_are_hashed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = after_cloning(monkeypatch, lambda source: os.pwrite(source, CONTENT[9:10], 9))
    stand.store.put(DIGEST, flip(CONTENT, 9))
    assert stand.verifier.verify(DIGEST) is Outcome.REJECTED
    assert ends == [len(CONTENT)]
    assert stand.store.verified_names(DIGEST) == []


def test_of_a_file_that_is_too_long_no_more_is_cloned_than_tells_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = after_cloning(monkeypatch, lambda _source: None)
    stand.store.put(DIGEST, CONTENT)
    os.truncate(stand.store.layout.data(DIGEST), 2**40)
    assert stand.verifier.verify(DIGEST) is Outcome.REJECTED
    (end,) = ends
    assert len(CONTENT) < end <= len(CONTENT) + BLOCK_BYTES
    assert the_record(stand).size == len(CONTENT) + 1


def test_a_source_that_shrinks_while_it_is_followed_is_judged_by_what_it_is_in_the_end(stand: Stand) -> None:
    follower = Follower(stand.verifier)
    download = Download(stand.store, CONTENT)
    download.receive(4 * MIB)
    follower.step(DIGEST)
    os.truncate(stand.store.layout.data(DIGEST), 3 * MIB + 5)
    download.announce(prefix=8 * MIB)
    follower.step(DIGEST)
    stand.store.write_journal(DIGEST, generation=download.generation, size=len(CONTENT))
    assert stand.verifier.verify(DIGEST) is Outcome.REJECTED
    assert stand.store.verified_names(DIGEST) == []
    assert the_record(stand).size == 3 * MIB + 5


def test_holes_and_preallocated_room_are_the_zeros_that_they_read_as(tmp_path: Path) -> None:
    content = CONTENT[: 2 * MIB] + bytes(3 * MIB) + CONTENT[:MIB] + bytes(MIB) + b"the end"
    with disk_of("xfs", tmp_path) as disk:
        stand = Stand(disk, content)
        stand.store.put(stand.digest, b"")
        data = stand.store.layout.data(stand.digest)
        with data.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 4 * MIB)  # the rest of the zeros are holes
            for start, end in ((0, 2 * MIB), (5 * MIB, 6 * MIB), (7 * MIB, len(content))):
                os.pwrite(file.fileno(), content[start:end], start)
        stand.store.write_journal(stand.digest, size=len(content))
        assert stand.verifier.verify(stand.digest) is Outcome.PROMOTED
        stand.assert_verified()
        assert stand.listener.told == [0]


def test_a_disk_with_room_for_one_copy_needs_no_low_space_mode(tmp_path: Path) -> None:
    with disk_of("xfs", tmp_path) as disk:
        stand = Stand(disk)
        stand.store.put(DIGEST, CONTENT)
        with (disk / "others").open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, free_bytes(disk) - 4 * MIB)
        assert free_bytes(disk) < len(CONTENT)
        assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
        stand.assert_verified()
        assert stand.listener.told == [0]


def test_low_space_mode_that_the_downloader_asks_for_stays_as_it_is(stand: Stand) -> None:
    follower = Follower(stand.verifier)
    download = Download(stand.store, CONTENT, mode="low-space")
    download.receive(4 * MIB)
    follower.step(DIGEST)
    begun = stand.verifier.copies.get(DIGEST)
    assert begun is not None
    assert isinstance(begun.copy, LowSpaceCopy)
    download.complete()
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    stand.assert_verified()


def test_where_a_clone_finds_no_room_for_its_map_the_bytes_are_written(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(source: int, target: int, offset: int, length: int) -> None:
        if length > BLOCK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        clone_range(source, target, offset, length)

    monkeypatch.setattr(cloned_copy, "clone_range", clone)
    download = Download(stand.store, CONTENT)
    download.receive(4 * MIB)
    assert Follower(stand.verifier).step(DIGEST) is False
    assert stand.verifier.copies.get(DIGEST) is None, "the follower gave way"
    download.complete()
    held = os.open(stand.store.layout.data(DIGEST), os.O_RDONLY)
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    assert shared_bytes(held) == 0
    os.close(held)
    stand.assert_verified()
    assert stand.listener.told == [0, len(CONTENT)]


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_file_system_that_shares_no_extents_gets_a_copy_that_is_written(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / kind, 64 * MIB) if kind == "tmpfs" else disk_of(kind, tmp_path) as disk:
        stand = Stand(disk)
        download = Download(stand.store, CONTENT)
        download.receive(4 * MIB)
        Follower(stand.verifier).step(DIGEST)
        begun = stand.verifier.copies.get(DIGEST)
        assert begun is not None
        assert not isinstance(begun.copy, ClonedCopy)
        download.complete()
        assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
        stand.assert_verified()
        assert stand.listener.told == [len(CONTENT)]


def test_nothing_is_cloned_from_another_file_system_and_no_file_is_left_of_the_try(
    stand: Stand, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with elsewhere.open("rb") as source:
        copy = open_cloned_copy(
            stand.store.layout, DIGEST, source.fileno(), len(CONTENT), is_complete=True, may_reject=True
        )
    assert copy is None
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_whole_blocks_are_cloned_while_it_grows_and_the_rest_at_its_end(stand: Stand) -> None:
    elsewhere = stand.disk / "growing"
    elsewhere.write_bytes(CONTENT[:MIB])
    never, told = threading.Event(), []
    with elsewhere.open("rb") as source:
        copy = open_cloned_copy(
            stand.store.layout, DIGEST, source.fileno(), len(CONTENT), is_complete=False, may_reject=False
        )
        assert copy is not None
        copy.advance(source.fileno(), until=3 * BLOCK_BYTES + 5, stop=never, on_bytes=told.append)
        assert told == [3 * BLOCK_BYTES]
        copy.advance(source.fileno(), until=3 * BLOCK_BYTES + 6, stop=never, on_bytes=told.append)
        assert told == [3 * BLOCK_BYTES]
        elsewhere.write_bytes(CONTENT)
        whole = copy.fill(source.fileno(), size=len(CONTENT), stop=never, on_bytes=told.append)
    assert whole.found == DIGEST
    assert os.pread(copy.descriptor, len(CONTENT) + 1, 0) == CONTENT
    copy.close()


def test_a_stop_while_a_clone_is_hashed_promotes_nothing_and_costs_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_cloning(monkeypatch, lambda _source: stand.verifier.stop.set())
    stand.store.put(DIGEST, CONTENT)
    assert stand.verifier.verify(DIGEST) is Outcome.STOPPED
    assert stand.store.verified_names(DIGEST) == []
    assert stand.store.layout.data(DIGEST).read_bytes() == CONTENT
    monkeypatch.undo()
    stand.verifier.stop.clear()
    assert stand.verifier.verify(DIGEST) is Outcome.PROMOTED
    stand.assert_verified()


@pytest.mark.parametrize(("size", "is_complete"), [(0, True), (BLOCK_BYTES - 1, False)])
def test_what_is_too_small_to_try_is_written(stand: Stand, size: int, is_complete: bool) -> None:
    small = stand.disk / "small"
    small.write_bytes(bytes(size))
    with small.open("rb") as source:
        copy = open_cloned_copy(
            stand.store.layout, DIGEST, source.fileno(), 10, is_complete=is_complete, may_reject=is_complete
        )
    assert copy is None


def test_the_verifier_process_follows_by_cloning_and_says_that_its_copy_takes_no_room(
    stand: Stand, clean_redis: str, start_verifier: StartVerifier
) -> None:
    process = start_verifier(stand.store, clean_redis)
    process.wait_until_ready()
    download = Download(stand.store, CONTENT)
    download.receive(8 * MIB)
    link = RedisLink(clean_redis)
    wait_until(lambda: link.raw.get(f"r3mes:local:copy:{DIGEST}") == b"0", what="the hint")
    progress = RedisHints(link, "local")
    wait_until(lambda: (told := progress.read_verification(DIGEST)) is not None and told.hashed_bytes == 8 * MIB)
    assert not stand.verified.exists()
    download.complete()
    VerifyQueue(link, "local").enqueue(DIGEST)
    wait_until(lambda: has_right_receipt(stand.store.layout, DIGEST, "tiny.gguf") is not None)
    assert stand.verified.read_bytes() == CONTENT
    verified = wait_until(lambda: LogReader(process.log_file, whole=True).last("verified"), what="the log's line")
    assert verified["followed_bytes"] == 8 * MIB
    process.terminate()
