"""Real files through the whole promote path, in this process."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import private_copy as private_copy_module
from services.verifier.metrics import VerifierMetrics
from services.verifier.rejected import MAX_RECORDS, read_rejected
from services.verifier.verification import Outcome, SilentObserver, Verifier
from shared.store.records import Receipt
from shared.store.trust import TrustWatch
from shared.store.verified import has_right_receipt
from tests.support.verifier_store import Store, entry, sha256_of

RIGHT = os.urandom(3_000_001)
DIGEST = sha256_of(RIGHT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(RIGHT))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def verifier(store: Store, registry: CollectorRegistry) -> Verifier:
    return make_verifier(store, registry)


def make_verifier(store: Store, registry: CollectorRegistry | None = None) -> Verifier:
    metrics = VerifierMetrics(registry or CollectorRegistry())
    return Verifier(store.layout, TrustWatch(store.layout), metrics, threading.Event(), SilentObserver())


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None
    return found


def test_a_right_file_is_promoted_and_incoming_is_removed(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    journal = store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    assert file.read_bytes() == RIGHT
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert file.stat().st_nlink == 1
    assert stat.S_IMODE(store.layout.receipt(DIGEST).stat().st_mode) == 0o444
    assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert (receipt.source, receipt.revision, receipt.size) == (journal.source, "main", len(RIGHT))
    assert value(registry, "r3mes_promotions_total") == 1
    assert value(registry, "r3mes_verifications_total", result="match") == 1
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("wrong", "found_whole"),
    [
        pytest.param(flip(RIGHT, 0), True, id="the first bit flipped"),
        pytest.param(flip(RIGHT, len(RIGHT) - 1), True, id="a bit of the last byte flipped"),
        pytest.param(RIGHT[:-1], True, id="truncated by a byte"),
        pytest.param(RIGHT + b"\0", True, id="one byte more"),
        pytest.param(b"", True, id="empty"),
    ],
)
def test_wrong_bytes_are_deleted_recorded_and_counted(
    store: Store, verifier: Verifier, registry: CollectorRegistry, wrong: bytes, found_whole: bool
) -> None:
    journal = store.put(DIGEST, wrong)
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert store.verified_names(DIGEST) == []
    assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert record.reason == "mismatch"
    assert record.generation == journal.generation
    assert (record.found == sha256_of(wrong)) is found_whole
    assert value(registry, "r3mes_verifications_total", result="mismatch") == 1
    assert value(registry, "r3mes_deletions_total", reason="mismatch") == 1
    assert value(registry, "r3mes_promotions_total") == 0


def test_a_file_longer_than_the_genesis_says_is_not_read_to_its_end(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "models", entry(RIGHT, size_bytes=len(RIGHT)))
    store.put(DIGEST, RIGHT + bytes(10_000_000))
    assert make_verifier(store).verify(DIGEST) is Outcome.REJECTED
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.size, record.found) == (len(RIGHT) + 1, None)


def test_a_second_job_for_a_verified_digest_is_a_success_and_reads_nothing(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    store.put(DIGEST, RIGHT)
    verifier.verify(DIGEST)
    store.put(DIGEST, flip(RIGHT, 5))  # a late duplicate of the download
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert not store.layout.data(DIGEST).exists()
    assert value(registry, "r3mes_verified_bytes_total") == len(RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED


def test_a_digest_that_is_not_pinned_is_refused_and_nothing_is_touched(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    other = sha256_of(b"other")
    store.put(other, b"other")
    assert verifier.verify(other) is Outcome.REFUSED
    assert store.layout.data(other).read_bytes() == b"other"
    assert store.verified_names(other) == []
    assert value(registry, "r3mes_jobs_refused_total", reason="not_pinned") == 1


def test_a_staged_digest_is_verified_too(store: Store, verifier: Verifier) -> None:
    staged = Store.make(store.layout.root.parent / "staged", entry(b"staged", "next"))
    store.layout.next_genesis.write_bytes(staged.layout.genesis.read_bytes())
    digest = sha256_of(b"staged")
    store.put(digest, b"staged")
    assert verifier.verify(digest) is Outcome.PROMOTED


def test_without_any_download_there_is_nothing_to_do(verifier: Verifier) -> None:
    assert verifier.verify(DIGEST) is Outcome.NOTHING


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"complete": False}, id="incomplete"),
        pytest.param({"ino": 1}, id="another inode"),
        pytest.param({"sha256": sha256_of(b"other")}, id="another digest"),
    ],
)
def test_nothing_is_pronounced_without_a_complete_journal_of_this_inode(
    store: Store, verifier: Verifier, change: dict[str, object]
) -> None:
    store.put(DIGEST, flip(RIGHT, 7))
    store.write_journal(DIGEST, size=len(RIGHT), **change)
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.layout.data(DIGEST).exists()
    assert read_rejected(store.layout, DIGEST) == {}


def test_a_mismatch_is_not_pronounced_when_the_download_began_anew_meanwhile(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, flip(RIGHT, 7))
    begin_anew = during_the_copy(monkeypatch, lambda: store.put(DIGEST, RIGHT))
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert begin_anew.called
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


class during_the_copy:  # noqa: N801 - reads as what it does
    """Run `action` once, after the first buffer was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
        self.called = False
        self._action = action
        self._write = private_copy_module.PrivateCopy._append

        def append(copy: private_copy_module.PrivateCopy, buffer: memoryview, offset: int) -> None:
            self._write(copy, buffer, offset)
            if not self.called:
                self.called = True
                self._action()

        monkeypatch.setattr(private_copy_module.PrivateCopy, "_append", append)


def test_a_right_copy_is_promoted_but_a_newer_download_is_left_alone(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    newer = b"the beginning of another download"
    replaced = during_the_copy(monkeypatch, lambda: store.put(DIGEST, newer, complete=False, ranges=()))
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert replaced.called
    assert store.layout.data(DIGEST).read_bytes() == newer
    assert store.layout.journal(DIGEST).exists()
    assert store.wrong_verified_files() == []


@pytest.mark.parametrize("how", ["grows", "shrinks", "is overwritten"])
def test_a_file_that_changes_while_it_is_copied_is_never_promoted_with_other_bytes(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", 1 << 16)
    store.put(DIGEST, RIGHT)

    def change() -> None:
        with store.layout.data(DIGEST).open("r+b") as file:
            match how:
                case "grows":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                case "shrinks":
                    file.truncate(1 << 17)
                case _:
                    file.seek(1 << 20)
                    file.write(b"overwritten")

    changed = during_the_copy(monkeypatch, change)
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert changed.called
    assert store.verified_names(DIGEST) == []


def make_hostile(kind: str, path: Path, tmp_path: Path) -> None:
    path.unlink()
    match kind:
        case "symlink":
            (tmp_path / "elsewhere").write_bytes(RIGHT)
            path.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(path)
        case "hard link":
            (tmp_path / "elsewhere").write_bytes(RIGHT)
            path.hardlink_to(tmp_path / "elsewhere")
        case "directory":
            path.mkdir()
        case "socket":
            os.mknod(path, 0o666 | stat.S_IFSOCK)
        case "device":
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # what /dev/zero is


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "directory", "socket", "device"])
def test_whatever_is_not_a_plain_file_is_not_read(
    store: Store, verifier: Verifier, registry: CollectorRegistry, tmp_path: Path, kind: str
) -> None:
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    store.put(DIGEST, RIGHT)
    make_hostile(kind, store.layout.data(DIGEST), tmp_path)
    if kind not in {"symlink", "socket", "directory"}:  # with a journal that fits, so that only the kind is wrong
        store.write_journal(DIGEST, size=len(RIGHT))
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert store.verified_names(DIGEST) == []
    assert value(registry, "r3mes_verifications_total", result="error") == 1
    assert read_rejected(store.layout, DIGEST) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every mode")
def test_data_of_mode_zero_is_an_error_and_stays(store: Store, verifier: Verifier) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.data(DIGEST).chmod(0)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert store.layout.data(DIGEST).exists()


def test_an_incoming_directory_that_is_a_link_is_not_followed(store: Store, verifier: Verifier, tmp_path: Path) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.incoming_dir(DIGEST).rename(tmp_path / "elsewhere")
    store.layout.incoming_dir(DIGEST).symlink_to(tmp_path / "elsewhere")
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert (tmp_path / "elsewhere" / "data").exists()


def test_a_verified_directory_that_is_a_link_is_not_followed(store: Store, verifier: Verifier, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    store.layout.verified_dir(DIGEST).symlink_to(tmp_path / "elsewhere")
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert store.layout.data(DIGEST).exists()


def test_without_unnamed_files_a_named_copy_is_promoted_by_rename(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch)
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == RIGHT
    assert list(store.layout.partial.iterdir()) == []
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


def test_without_unnamed_files_wrong_bytes_leave_no_named_copy(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch)
    store.put(DIGEST, flip(RIGHT, 9))
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert list(store.layout.partial.iterdir()) == []


def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer as a file system without O_TMPFILE does (vfat, some network file systems)."""
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("failing", ["the copy", "verified/"])
def test_a_failed_fsync_discards_the_copy_and_keeps_incoming(
    store: Store, verifier: Verifier, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.put(DIGEST, RIGHT)
    real, failed = os.fsync, []

    def fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not failed and is_directory == (failing == "verified/"):
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert failed
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert value(registry, "r3mes_promotions_total") == 0
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_full_disk_promotes_nothing_keeps_incoming_and_the_next_job_succeeds(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)

    def no_room(_descriptor: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(private_copy_module, "reserve", no_room)
        assert verifier.verify(DIGEST) is Outcome.ERROR
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).read_bytes() == RIGHT
    assert verifier.verify(DIGEST) is Outcome.PROMOTED


def test_a_stop_during_the_copy_promotes_nothing_and_keeps_incoming(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_copy_module, "BUFFER_BYTES", 1 << 16)
    store.put(DIGEST, RIGHT)
    during_the_copy(monkeypatch, verifier.stop.set)
    assert verifier.verify(DIGEST) is Outcome.STOPPED
    assert store.verified_names(DIGEST) == []
    assert store.layout.data(DIGEST).exists()


def test_at_most_twenty_records_a_digest_and_one_a_generation(store: Store, verifier: Verifier) -> None:
    generation = "a" * 32
    for _again in range(2):
        store.put(DIGEST, b"wrong", generation=generation)
        verifier.verify(DIGEST)
    assert len(read_rejected(store.layout, DIGEST)) == 1
    for _again in range(MAX_RECORDS + 3):
        last = store.put(DIGEST, b"wrong")
        verifier.verify(DIGEST)
    records = read_rejected(store.layout, DIGEST)
    assert len(records) == MAX_RECORDS
    assert len(list(store.layout.rejected.iterdir())) == MAX_RECORDS
    assert last.generation in {record.generation for record in records.values()}
    assert generation not in {record.generation for record in records.values()}  # the oldest went first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may rename in every directory")
def test_an_incoming_that_cannot_be_removed_does_not_take_the_verdict_back(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.incoming_dir(DIGEST).chmod(0o500)
    try:
        assert verifier.verify(DIGEST) is Outcome.PROMOTED
    finally:
        store.layout.incoming_dir(DIGEST).chmod(0o700)
    assert value(registry, "r3mes_verifications_total", result="error") == 1


# Step 0: what is there already.


def promoted(store: Store, verifier: Verifier) -> Path:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    return store.layout.verified_file(DIGEST, "tiny.gguf")


def test_a_right_file_without_a_receipt_is_hashed_again_and_gets_one(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    inode = file.stat().st_ino
    store.layout.receipt(DIGEST).unlink()
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None
    assert file.stat().st_ino == inode


def test_a_touched_file_keeps_its_origin_in_the_new_receipt(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    os.utime(file)
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is None
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert receipt.revision == "main"


def test_a_changed_verified_file_is_quarantined_and_the_download_takes_its_place(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    file = promoted(store, verifier)
    file.chmod(0o644)
    file.write_bytes(flip(RIGHT, 100))
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.verified_names(DIGEST) == []
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.found) == ("tampered", sha256_of(flip(RIGHT, 100)))
    assert value(registry, "r3mes_deletions_total", reason="tampered") == 1
    promoted(store, verifier)


def test_a_forged_receipt_does_not_save_a_wrong_file_for_long(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    receipt = Receipt.read(store.layout.receipt(DIGEST))
    assert receipt is not None
    file.unlink()
    file.write_bytes(flip(RIGHT, 100))  # another inode: the old receipt does not fit
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert store.verified_names(DIGEST) == []


def test_a_new_file_name_for_a_verified_digest_renames_it_and_writes_a_new_receipt(
    store: Store, verifier: Verifier
) -> None:
    file = promoted(store, verifier)
    inode = file.stat().st_ino
    store.accept(entry(RIGHT, file_name="renamed.gguf"))
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert store.verified_names(DIGEST) == ["receipt.json", "renamed.gguf"]
    assert store.layout.verified_file(DIGEST, "renamed.gguf").stat().st_ino == inode
    assert has_right_receipt(store.layout, DIGEST, "renamed.gguf") is not None


def test_a_link_under_the_verified_name_is_removed_not_followed(
    store: Store, verifier: Verifier, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(RIGHT)
    store.layout.verified_dir(DIGEST).mkdir()
    store.layout.verified_file(DIGEST, "tiny.gguf").symlink_to(tmp_path / "elsewhere")
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert not store.layout.verified_file(DIGEST, "tiny.gguf").is_symlink()
    assert (tmp_path / "elsewhere").exists()


# What a crash left claimed.


@pytest.mark.parametrize("with_journal", [True, False])
def test_data_that_a_crash_left_claimed_is_judged_again(store: Store, verifier: Verifier, with_journal: bool) -> None:
    journal = store.put(DIGEST, RIGHT)
    store.layout.data(DIGEST).rename(store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}")
    if not with_journal:
        store.layout.journal(DIGEST).unlink()
    assert verifier.verify(DIGEST) is (Outcome.PROMOTED if with_journal else Outcome.NOTHING)
    names = [path.name for path in store.layout.incoming_dir(DIGEST).iterdir()]
    assert names == ([] if with_journal else ["data"])


def test_a_claimed_file_beside_a_newer_download_is_deleted(store: Store, verifier: Verifier) -> None:
    journal = store.put(DIGEST, b"old")
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    store.layout.data(DIGEST).rename(claimed)
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert not claimed.exists()
