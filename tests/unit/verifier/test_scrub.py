"""The scrub: reads what is due, in nobody's way, and acts only on what still is what it read."""

import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import existing as existing_module
from services.verifier import housekeeping, quiet_reading
from services.verifier.housekeeping import Housekeeper, scrub
from services.verifier.linux import be_nice, idle_io
from services.verifier.quiet_reading import hash_quietly
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.records import Receipt
from shared.store.verified import has_right_receipt
from tests.support.verifier_stand import DIGEST, RIGHT, flip, value
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

DAY = 86400.0
ALWAYS = 1e-12  # hours


@pytest.fixture
def verified(store: Store, verifier: Verifier) -> Path:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    return store.layout.verified_file(DIGEST, "tiny.gguf")


def scrubbed(registry: CollectorRegistry) -> dict[str, float]:
    return {
        result: value(registry, "r3mes_scrub_files_total", result=result) for result in ("match", "mismatch", "error")
    }


def date_receipt(store: Store, verified_at: float) -> None:
    receipt = Receipt.read(store.layout.receipt(DIGEST))
    assert receipt is not None
    receipt.model_copy(update={"verified_at": verified_at}).write(store.layout.receipt(DIGEST))


def rot(store: Store, path: Path) -> None:
    """Flip a bit, and let the receipt fit the file, as when the disk did it."""
    path.chmod(0o644)
    path.write_bytes(flip(RIGHT, 1_000_000))
    path.chmod(0o444)
    receipt = Receipt.read(store.layout.receipt(DIGEST))
    assert receipt is not None
    status = path.stat()
    st = {"dev": status.st_dev, "ino": status.st_ino, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    receipt.model_copy(update={"st": receipt.st.model_copy(update=st)}).write(store.layout.receipt(DIGEST))
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


@pytest.mark.parametrize(
    ("age", "hours", "is_read"),
    [
        pytest.param(0, 168, False, id="fresh"),
        pytest.param(6 * DAY, 168, False, id="not due"),
        pytest.param(8 * DAY, 168, True, id="due"),
        pytest.param(-365 * DAY, 168, True, id="from a clock that was set back by a year"),
    ],
)
def test_what_is_due_is_read_again_and_dated_anew(
    store: Store,
    verifier: Verifier,
    registry: CollectorRegistry,
    verified: Path,
    age: float,
    hours: float,
    is_read: bool,
) -> None:
    date_receipt(store, time.time() - age)
    before = verified.stat()
    scrub(verifier, hours)
    assert scrubbed(registry) == {"match": int(is_read), "mismatch": 0, "error": 0}
    receipt = has_right_receipt(store.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert (receipt.verified_at == pytest.approx(time.time(), abs=60)) is (is_read or age == 0)
    assert (verified.stat().st_ino, verified.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    scrub(verifier, hours)
    assert scrubbed(registry)["match"] == int(is_read)


def test_a_rotten_file_is_out_at_once_recorded_counted_and_told(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(verifier, "tell_verdict", told.append)
    rot(store, verified)
    scrub(verifier, ALWAYS)
    assert store.verified_names(DIGEST) == []
    assert scrubbed(registry) == {"match": 0, "mismatch": 1, "error": 0}
    assert value(registry, "r3mes_deletions_total", reason="tampered") == 1
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.found) == ("tampered", sha256_of(flip(RIGHT, 1_000_000)))
    assert told == [DIGEST]


class Reading:
    """Runs the scrub in a thread that stands still once it has read the file, until `go_on`."""

    def __init__(self, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_read = threading.Event()
        self.go_on = threading.Event()

        def hold(descriptor: int, size: int, stop: threading.Event) -> str | None:
            found = hash_quietly(descriptor, size, stop)
            self.has_read.set()
            assert self.go_on.wait(30)
            return found

        monkeypatch.setattr(existing_module, "hash_quietly", hold)
        self._thread = threading.Thread(target=scrub, args=(verifier, ALWAYS), daemon=True)
        self._thread.start()
        assert self.has_read.wait(30)

    def end(self) -> None:
        self.go_on.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_while_it_reads_jobs_for_the_same_digest_and_for_others_get_their_verdicts(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.urandom(1000)
    store.accept(entry(RIGHT), entry(other, "other"))
    reading = Reading(verifier, monkeypatch)
    assert not verifier.lock_of(DIGEST).locked()
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    store.put(sha256_of(other), other)
    assert verifier.verify(sha256_of(other)) is Outcome.PROMOTED
    reading.end()
    assert verified.exists()
    assert scrubbed(registry)["match"] >= 1


def test_what_changed_since_it_was_read_is_judged_by_its_own_bytes(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(verifier, monkeypatch)
    verified.chmod(0o644)
    verified.write_bytes(flip(RIGHT, 5))
    reading.end()
    assert store.verified_names(DIGEST) == []
    assert scrubbed(registry)["mismatch"] == 1


def test_a_right_file_that_took_the_place_of_a_wrong_one_meanwhile_stays(
    store: Store, verifier: Verifier, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rot(store, verified)
    reading = Reading(verifier, monkeypatch)
    verified.unlink()
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    reading.end()
    assert verified.read_bytes() == RIGHT
    assert has_right_receipt(store.layout, DIGEST, "tiny.gguf") is not None


def test_a_name_that_the_genesis_gave_it_meanwhile_stays(
    store: Store, verifier: Verifier, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(verifier, monkeypatch)
    store.accept(entry(RIGHT, file_name="renamed.gguf"))
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    reading.end()
    assert not verified.exists()
    assert store.verified_names(DIGEST) == ["receipt.json", "renamed.gguf"]


def test_a_stop_ends_the_reading_and_decides_nothing(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rot(store, verified)
    real = os.preadv

    def stopping(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        verifier.stop.set()
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", stopping)
    scrub(verifier, ALWAYS)
    assert verified.exists()
    assert scrubbed(registry) == {"match": 0, "mismatch": 0, "error": 0}


def test_a_disk_that_cannot_be_read_is_counted_and_decides_nothing(
    verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    scrub(verifier, ALWAYS)
    assert verified.exists()
    assert scrubbed(registry) == {"match": 0, "mismatch": 0, "error": 1}


def test_a_link_in_the_place_of_the_file_is_not_followed_and_goes(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    verified.rename(elsewhere)
    verified.symlink_to(elsewhere)
    scrub(verifier, ALWAYS)
    assert store.verified_names(DIGEST) == []
    assert scrubbed(registry) == {"match": 0, "mismatch": 1, "error": 0}
    assert elsewhere.read_bytes() == RIGHT


def test_of_two_files_with_the_same_bytes_the_one_with_the_pinned_name_stays(
    store: Store, verifier: Verifier, registry: CollectorRegistry, verified: Path
) -> None:
    (verified.parent / "a copy.gguf").write_bytes(RIGHT)
    scrub(verifier, ALWAYS)
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]
    assert scrubbed(registry) == {"match": 1, "mismatch": 0, "error": 0}


def test_a_model_that_was_removed_a_moment_ago_is_no_error(
    verifier: Verifier, registry: CollectorRegistry, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = verified.parent.with_name("0" * 64)
    monkeypatch.setattr(housekeeping, "verified_digest_dirs", lambda _layout: [gone, verified.parent])
    scrub(verifier, ALWAYS)
    assert scrubbed(registry) == {"match": 1, "mismatch": 0, "error": 0}


def test_a_verifier_that_stops_begins_no_other_file(
    verifier: Verifier, registry: CollectorRegistry, verified: Path
) -> None:
    verifier.stop.set()
    scrub(verifier, ALWAYS)
    assert verified.exists()
    assert scrubbed(registry) == {"match": 0, "mismatch": 0, "error": 0}


def test_the_thread_scrubs_again_and_again_until_the_verifier_stops(
    verifier: Verifier, registry: CollectorRegistry, verified: Path
) -> None:
    housekeeper = Housekeeper(verifier, scrub_hours=ALWAYS, retain_hours=None)
    housekeeper.start()
    wait_until(lambda: scrubbed(registry)["match"] >= 3, what="several rounds")
    verifier.stop.set()
    wait_until(lambda: not any(t.name == "housekeeping" for t in threading.enumerate()), what="its end")
    assert not housekeeper.has_failed
    assert verified.exists()


# How it reads.

TAIL = RIGHT[:3_000_001]
BLOCKS = RIGHT[: 700 * 4096]


@pytest.mark.parametrize("content", [TAIL, BLOCKS, b"", b"x"], ids=["with a tail", "whole blocks", "empty", "a byte"])
@pytest.mark.parametrize("refused", ["nothing", "the flag", "the read"])
def test_whatever_the_file_system_can_the_digest_is_that_of_all_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, refused: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    real_fcntl, real_preadv = fcntl.fcntl, os.preadv
    refusals = 0

    def no_flag(descriptor: int, command: int, argument: int = 0) -> int:
        nonlocal refusals
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            refusals += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_fcntl(descriptor, command, argument)

    def no_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal refusals
        if real_fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refusals += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_preadv(descriptor, buffers, offset)

    if refused == "the flag":
        monkeypatch.setattr(quiet_reading.fcntl, "fcntl", no_flag)
    elif refused == "the read":
        monkeypatch.setattr(os, "preadv", no_read)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert hash_quietly(descriptor, len(content), threading.Event()) == sha256_of(content)
    finally:
        os.close(descriptor)
    assert refusals == (0 if refused == "nothing" else 1)


def test_a_file_that_grows_without_end_is_read_to_a_buffer_beyond_its_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(RIGHT)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert hash_quietly(descriptor, 10, threading.Event()) != sha256_of(RIGHT[:10])
    finally:
        os.close(descriptor)


def cached_pages(path: Path) -> int:
    """Count the pages of a file that are in the page cache, by mincore(2)."""
    import ctypes  # noqa: PLC0415

    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        pages = -(-path.stat().st_size // mmap.PAGESIZE)
        answer = (ctypes.c_ubyte * pages)()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(path.stat().st_size), answer) == 0
        return sum(page & 1 for page in answer)


@pytest.mark.parametrize("was_cached", [True, False])
def test_the_page_cache_is_left_as_it_was(tmp_path: Path, was_cached: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(BLOCKS)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if not was_cached:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        before = cached_pages(path)
        if (before > 0) is not was_cached:
            pytest.skip("this file system has no page cache to give up")
        if not quiet_reading._set_direct(descriptor, wanted=True):
            pytest.skip("this file system reads through the page cache alone")
        hash_quietly(descriptor, len(BLOCKS), threading.Event())
        assert cached_pages(path) == before
    finally:
        os.close(descriptor)


def in_a_thread(work: Callable[[], object]) -> object:
    """Return what `work` returns in a thread of its own: what it lowers, it lowers for good."""
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]


def io_priority() -> int:
    import ctypes  # noqa: PLC0415

    get = {"x86_64": 252, "aarch64": 31}.get(os.uname().machine)
    if get is None:
        pytest.skip("the number of ioprio_get is not known here")
    return int(ctypes.CDLL(None).syscall(get, 1, 0))


def test_the_thread_alone_is_lowered_and_the_disk_only_while_it_reads() -> None:
    def lowered() -> tuple[int, int, int, int]:
        be_nice(10)
        before = io_priority()
        with idle_io():
            meanwhile = io_priority()
        return before, meanwhile, io_priority(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), io_priority()
    before, meanwhile, after, niceness = in_a_thread(lowered)  # type: ignore[misc]
    assert meanwhile >> 13 == 3
    assert after == before
    assert niceness == 10
    assert here == (os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), io_priority())


def test_a_fault_in_the_thread_ends_the_verifier_instead_of_ending_the_scrub(
    verifier: Verifier, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(verifier, "poll_trust", fail)
    housekeeper = Housekeeper(verifier, scrub_hours=1, retain_hours=None)
    housekeeper.start()
    wait_until(lambda: housekeeper.has_failed, what="the failure to be seen")
    assert verifier.stop.is_set()
    assert verified.exists()
