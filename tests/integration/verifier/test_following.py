"""The verifier process follows downloads under way: what is left for the job, who waits for whom, what stays."""

import json
import os
import threading
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from services.verifier.follower import Follower
from services.verifier.following import FOLLOWING_THREADS, Following
from shared.hints import RedisHints
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.states import VerificationProgress
from shared.store.records import PartialNote
from tests.support.redis_server import RedisServer
from tests.support.slow_download import MIB, Download
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

CONTENT = os.urandom(5 * MIB + 4321)
DIGEST = sha256_of(CONTENT)
OTHER = os.urandom(2 * MIB + 1)
STOP_SECONDS = 5.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(CONTENT), entry(OTHER, "other"))


@pytest.fixture
def hints(clean_redis: str):  # noqa: ANN201 - a generator of RedisHints
    link = RedisLink(clean_redis)
    yield RedisHints(link, "local")
    link.close()


def wait_for_progress(hints: RedisHints, download: Download, hashed: int) -> VerificationProgress:
    def there() -> VerificationProgress | None:
        progress = hints.read_verification(download.digest)
        is_there = progress and (progress.generation, progress.hashed_bytes) == (download.generation, hashed)
        return progress if is_there else None

    return wait_until(there, 20, f"{hashed} bytes of {download.generation} followed")


def wait_for_promotion(store: Store, redis_url: str, content: bytes, name: str = "tiny") -> None:
    digest = sha256_of(content)
    link = RedisLink(redis_url)
    queue = VerifyQueue(link, "local")
    receipt = store.layout.receipt(digest)
    wait_until(lambda: receipt.exists() or (queue.enqueue(digest) and False), 60, f"promotion of {name}")
    link.close()
    assert store.layout.verified_file(digest, f"{name}.gguf").read_bytes() == content


def followed_bytes(verifier: VerifierProcess, digest: str) -> int:
    """What the job found copied, as the log says."""

    def said() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in verifier.log().splitlines()]
        return [line for line in lines if line["event"] == "verified" and line["sha256"] == digest]

    (line,) = wait_until(said, what="the line in the log")
    return int(str(line["followed_bytes"]))


def test_a_slow_download_is_nearly_done_when_its_last_byte_comes(
    store: Store, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    download = Download(store, CONTENT)
    for received in range(MIB, len(CONTENT), MIB):
        download.receive(received)
        progress = wait_for_progress(hints, download, received)
        assert progress.size_bytes == len(CONTENT)
        assert hints.read_copy_size(DIGEST) == len(CONTENT)
    download.complete()
    wait_for_promotion(store, clean_redis, CONTENT)
    assert len(CONTENT) - followed_bytes(verifier, DIGEST) < MIB
    assert verifier.metric("r3mes_verified_bytes_total") == len(CONTENT)
    wait_until(lambda: hints.read_copy_size(DIGEST) == 0, what="no copy is left")


def test_it_follows_without_redis_and_stops_at_once(
    store: Store, own_redis: RedisServer, start_verifier: StartVerifier
) -> None:
    own_redis.stop()
    verifier = start_verifier(store, own_redis.url)
    Download(store, CONTENT).receive(4 * MIB)
    wait_until(lambda: verifier.metric("r3mes_verified_bytes_total") == 4 * MIB, 30, "the followed bytes")
    assert verifier.terminate(STOP_SECONDS) == 0
    assert store.layout.data(DIGEST).exists()
    assert store.layout.verified_dir(DIGEST).exists() is False


def test_a_paused_download_holds_up_nobody_elses_verdict(
    store: Store, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    paused = Download(store, CONTENT)
    paused.receive(3 * MIB)
    wait_for_progress(hints, paused, 3 * MIB)
    other = Download(store, OTHER)
    other.receive(MIB)
    other.complete()
    wait_for_promotion(store, clean_redis, OTHER, "other")
    paused.complete()
    wait_for_promotion(store, clean_redis, CONTENT)
    assert followed_bytes(verifier, DIGEST) >= 3 * MIB


def test_a_generation_that_changes_midway_is_followed_from_its_beginning(
    store: Store, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    wrong = Download(store, CONTENT[::-1], DIGEST)
    wrong.receive(3 * MIB)
    wait_for_progress(hints, wrong, 3 * MIB)
    right = Download(store, CONTENT)
    right.receive(2 * MIB)
    wait_for_progress(hints, right, 2 * MIB)
    right.complete()
    wait_for_promotion(store, clean_redis, CONTENT)
    assert list(store.layout.rejected.iterdir()) == []


def test_a_restart_midway_trusts_nothing_and_follows_anew(
    store: Store, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    download = Download(store, CONTENT)
    download.receive(3 * MIB)
    wait_for_progress(hints, download, 3 * MIB)
    verifier.kill()
    verifier.restart()
    wait_until(lambda: verifier.metric("r3mes_verified_bytes_total") == 3 * MIB, 30, "followed again")
    download.receive(4 * MIB)
    wait_for_progress(hints, download, 4 * MIB)
    verifier.wait_until_ready()
    download.complete()
    wait_for_promotion(store, clean_redis, CONTENT)


def test_fifty_generations_leave_no_threads_and_no_descriptors(store: Store) -> None:
    process = psutil.Process()
    verifier = make_verifier(store, CollectorRegistry())
    following = Following(store.layout, Follower(verifier), verifier.stop)
    before: tuple[int, int] | None = None
    following.start()
    for number in range(50):
        download = Download(store, CONTENT if number % 2 else CONTENT[::-1], DIGEST)
        download.receive(MIB)

        def is_followed(download: Download = download) -> bool:
            begun = verifier.copies.get(DIGEST)
            return begun is not None and (begun.generation, begun.copy.hashing.done) == (download.generation, MIB)

        wait_until(is_followed, 20, f"generation {number}")
        now = (process.num_fds(), threading.active_count())
        before = before or now
    with verifier.lock_of(DIGEST):
        assert process.num_fds() <= before[0] + 2  # the descriptors of a step that may be under way are not counted
    assert threading.active_count() == before[1]
    following.close()
    verifier.copies.drop(DIGEST)
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("follow-")}
    assert names == set()
    assert FOLLOWING_THREADS <= 4
    assert process.num_fds() < before[0]


@pytest.mark.slow
def test_it_stays_within_a_hundred_megabytes_while_it_follows_and_judges(
    tmp_path: Path, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    contents = [os.urandom(48 * MIB + number) for number in range(4)]
    entries = [entry(content, f"m{number}") for number, content in enumerate(contents)]
    store = Store.make(tmp_path / "models", *entries)
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    downloads = [Download(store, content) for content in contents]
    for received in range(8 * MIB, 48 * MIB, 8 * MIB):
        for download in downloads:
            download.receive(received)
    for download in downloads:
        wait_for_progress(hints, download, 40 * MIB)
        download.complete()
    for number, content in enumerate(contents):
        wait_for_promotion(store, clean_redis, content, f"m{number}")
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{verifier.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert peak <= 100_000_000


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_step_ends_it_within_five_seconds(
    tmp_path: Path, clean_redis: str, start_verifier: StartVerifier
) -> None:
    size, digest = 4_000_000_000, sha256_of(b"a model that never comes")
    store = Store.make(tmp_path / "models", entry(digest, required_disk_space_gb=4.0))
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    download = Download(store, b"", digest)
    os.truncate(store.layout.data(download.digest), size)  # sparse, so that it costs no disk
    download.announce(size=size, prefix=size)
    wait_until(lambda: verifier.metric("r3mes_verified_bytes_total") > 0, 30, "the first step")
    assert verifier.metric("r3mes_verified_bytes_total") < size
    assert verifier.terminate(STOP_SECONDS) == 0
    assert store.layout.data(download.digest).exists()
    assert store.layout.verified_dir(download.digest).exists() is False


@pytest.mark.slow
def test_low_space_takes_little_more_room_than_one_copy_and_lives_through_a_kill(
    tmp_path: Path, hints: RedisHints, clean_redis: str, start_verifier: StartVerifier
) -> None:
    commit = 64 * MIB
    content = os.urandom(4 * MIB) * 50
    store = Store.make(tmp_path / "models", entry(content))
    verifier = start_verifier(store, clean_redis)
    verifier.wait_until_ready()
    download = Download(store, content, mode="low-space")
    layout, digest = store.layout, download.digest

    def durable() -> int:
        note = PartialNote.read(layout.partial_note(digest))
        return 0 if note is None else note.durable

    for received in range(32 * MIB, len(content), 32 * MIB):
        download.receive(received, durable=True)
        wait_until(lambda received=received: durable() == received // commit * commit, 30, f"{received} bytes followed")
        halves = [path for path in (layout.data(digest), layout.partial_file(digest)) if path.exists()]
        occupied = sum(path.stat().st_blocks * 512 for path in halves)
        assert occupied <= received + 2 * commit
        assert hints.read_copy_size(digest) == 0, "a partial has a name by which its size is found"
        if received == 4 * 32 * MIB:
            verifier.kill()
            verifier.restart()
    wait_until(lambda: layout.data(digest).stat().st_blocks * 512 < commit, what="the last punch")
    verifier.wait_until_ready()
    download.complete()
    wait_for_promotion(store, clean_redis, content)
    assert len(content) - followed_bytes(verifier, digest) < MIB
    assert list(layout.partial.iterdir()) == []
