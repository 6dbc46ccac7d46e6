"""A served file goes bad behind everybody's back: the real miner, verifier, downloader and Redis put it right."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from services.verifier.existing import Provenance, write_receipt
from services.verifier.rejected import read_rejected
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.store.layout import StoreLayout
from shared.store.records import Receipt, StatIdentity
from shared.store.verified import has_right_receipt
from tests.integration.miner import stand
from tests.integration.miner.stand import FILE_NAME, SHA256, Miner, genesis_entry, model_file
from tests.support.downloader_process import Downloader
from tests.support.origin_server import ScriptedOrigin, linked, ranged, redirect
from tests.support.programs import need
from tests.support.redis_server import RedisServer
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

IMAGE_BYTES = 512 * 1024 * 1024
AGAIN_SECONDS = 60.0
AT = 50_000_000  # in the middle of the file
PAGE = 4096
FETCHED = 'r3mes_download_attempts_total{outcome="complete",source="huggingface"}'


@dataclass
class Chain:
    """All of it at work on one store, with the model served; `image` is what the file system lies in."""

    layout: StoreLayout
    origin: ScriptedOrigin
    downloader: Downloader
    verifier: VerifierProcess
    miner: Miner
    image: Path

    @property
    def file(self) -> Path:
        return self.layout.verified_file(SHA256, FILE_NAME)

    def counts(self) -> dict[str, float]:
        return {
            "scrubbed away": self.verifier.metric("r3mes_scrub_files_total", {"result": "mismatch"}),
            "deleted": self.verifier.metric("r3mes_deletions_total", {"reason": "tampered"}),
            "promoted": self.verifier.metric("r3mes_promotions_total"),
            "recorded": len(read_rejected(self.layout, SHA256)),
            "fetched": self.downloader.metric(FETCHED),
            "loaded": self.miner.metric("r3mes_miner_model_load_seconds_count"),
        }

    def changed(self, before: dict[str, float]) -> dict[str, float]:
        return {what: count - before[what] for what, count in self.counts().items()}

    def wait_until_right_again(self, old: StatIdentity) -> None:
        """Another file is verified, and the miner answers from it; ext4 may give it the old one's inode number."""

        def is_renewed() -> bool:
            receipt = has_right_receipt(self.layout, SHA256, FILE_NAME)
            return receipt is not None and receipt.st != old

        wait_until(is_renewed, AGAIN_SECONDS, "the file to be fetched and verified again")
        self.miner.wait_ready()
        answer = self.miner.chat()
        assert answer.status_code == 200, answer.text
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        self.downloader.wait_for(SHA256, "verified")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The chain, started from nothing, on an ext4 file system of its own whose every block can be reached."""
    need("mkfs.ext4", "mount", "umount")
    folder = tmp_path_factory.mktemp("chain")
    home, image = folder / "home", folder / "ext4.image"
    home.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, home], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount an image: {mounted.stderr.decode().strip()}")
    try:
        with ScriptedOrigin() as origin, RedisServer(folder) as redis:
            yield from running(folder, home, image, origin, redis)
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def running(folder: Path, home: Path, image: Path, origin: ScriptedOrigin, redis: RedisServer) -> Iterator[Chain]:
    data = model_file().read_bytes()
    origin.scripts[f"/org/smol/resolve/main/{FILE_NAME}"] = redirect("/cdn", linked(data))
    origin.scripts["/cdn"] = ranged(data)
    environ = {"HF_ENDPOINT": origin.url, "R3MES_REDIS_URL": redis.url}
    downloader = Downloader(home, genesis_entry(size_bytes=len(data), required_disk_space_gb=0.1), environ=environ)
    genesis = {"R3MES_GENESIS": str(downloader.genesis)}
    with downloader:
        host = {**genesis, "R3MES_STORE_KIND": "host", "R3MES_SCRUB_HOURS": "0.0005"}  # 1.8 s
        verifier = VerifierProcess(Store(downloader.layout), redis.url, folder, **host)
        try:
            with Miner(stand.Store(home), genesis) as miner:
                chain = Chain(downloader.layout, origin, downloader, verifier, miner, image)
                downloader.wait_for(SHA256, "verified", 90)
                downloader.wait_counted("huggingface")
                miner.wait_ready()
                yield chain
        finally:
            verifier.kill()


def test_a_served_file_that_is_written_to_is_not_served_any_more_and_is_fetched_again(chain: Chain) -> None:
    before, fetched = chain.counts(), chain.origin.sent("/cdn")
    old = StatIdentity.of(chain.file.stat())
    chain.file.chmod(0o644)
    with chain.file.open("r+b") as file:
        file.seek(AT)
        file.write(b"tampered")
    refused = chain.miner.chat()
    assert refused.status_code == 503  # at once, not at the next look
    chain.wait_until_right_again(old)
    changed = chain.changed(before)
    assert changed.pop("scrubbed away") in {0, 1}  # the scrub found it, or the verdict that the downloader asked for
    assert changed == {"deleted": 1, "promoted": 1, "recorded": 1, "fetched": 1, "loaded": 1}
    assert_fetched_once(chain.origin.sent("/cdn") - fetched)
    records = read_rejected(chain.layout, SHA256).values()
    assert {record.reason for record in records} == {"tampered"}


def assert_fetched_once(sent: int) -> None:
    """A busy machine's connections take ranges over from each other, and what was on its way is sent in vain."""
    assert 1 <= sent / model_file().stat().st_size < 2, "another download"


def flip_on_the_disk(image: Path, page: bytes) -> int:
    """Flip a bit of each block that holds `page`, under the file system; return how many there were."""
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as blocks:
        found, at = 0, blocks.find(page)
        while at >= 0:
            blocks[at] ^= 1
            found, at = found + 1, blocks.find(page, at + PAGE)
        blocks.flush()
    return found


def test_a_served_file_that_rots_on_the_disk_is_found_by_the_scrub_alone(chain: Chain) -> None:
    """Inode, size and times stay, so does what is in memory: nobody but a reader of the disk can know."""
    before, fetched = chain.counts(), chain.origin.sent("/cdn")
    with chain.file.open("rb") as file:
        file.seek(AT // PAGE * PAGE)
        page = file.read(PAGE)
    os.sync()
    old = StatIdentity.of(chain.file.stat())
    assert flip_on_the_disk(chain.image, page) >= 1
    wait_until(lambda: chain.changed(before)["scrubbed away"] == 1, AGAIN_SECONDS, "the scrub to find it")
    chain.wait_until_right_again(old)
    assert chain.changed(before) == {
        "scrubbed away": 1,
        "deleted": 1,
        "promoted": 1,
        "recorded": 1,
        "fetched": 1,
        "loaded": 1,
    }
    assert_fetched_once(chain.origin.sent("/cdn") - fetched)


HUGE_BYTES = 4 * 10**12
HUGE_DIGEST = sha256_of(b"a model whose scrub takes longer than any test")
SMALL = os.urandom(10_000)
SMALL_DIGEST = sha256_of(SMALL)


def test_a_scrub_that_takes_hours_holds_up_no_verdict_and_no_stop(
    tmp_path: Path, clean_redis: str, start_verifier: StartVerifier
) -> None:
    store = Store.make(tmp_path / "models", entry(HUGE_DIGEST, "huge"), entry(SMALL, "small"))
    huge = store.layout.verified_file(HUGE_DIGEST, "huge.gguf")
    huge.parent.mkdir()
    with huge.open("wb") as file:
        file.truncate(HUGE_BYTES)  # sparse
    huge.chmod(0o444)
    write_receipt(store.layout, HUGE_DIGEST, "huge.gguf", huge.stat(), Provenance("0" * 64))
    verifier = start_verifier(store, clean_redis, R3MES_SCRUB_HOURS="0.0001")
    verifier.wait_until_ready()
    process = psutil.Process(verifier.process.pid)

    def is_reading() -> bool:
        return any(Path(file.path) == huge for file in process.open_files())

    wait_until(is_reading, 30, "the scrub to read")
    store.put(SMALL_DIGEST, SMALL)
    link = RedisLink(clean_redis)
    queue = VerifyQueue(link, "local")
    queue.enqueue(HUGE_DIGEST)  # of the very file that is being read
    queue.enqueue(SMALL_DIGEST)
    wait_until(lambda: store.verified_names(SMALL_DIGEST) == ["receipt.json", "small.gguf"], 30, "the verdicts")
    wait_until(lambda: queue.counts()["finished"] == 2, what="both jobs to be done")
    assert is_reading()
    assert verifier.terminate(5.0) == 0
    assert Receipt.read(store.layout.receipt(HUGE_DIGEST)) is not None
    assert huge.exists()
    link.close()
