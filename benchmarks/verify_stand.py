"""The real verifier over a real Redis and a store of one model, and what a run of it cost."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.arrival import Arrived, Order
from benchmarks.passes import Cost, read_through
from launcher.redis_server import RedisServer
from services.downloader.transfer.incoming import IncomingFile, Origin
from services.verifier.linux import IN_CREATE, Inotify
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.states import Source
from tests.support.log_reader import LogReader
from tests.support.verifier_process import REPOSITORY, VerifierProcess
from tests.support.verifier_store import Store, entry
from tests.support.waiting import wait_until

NODE = "bench"
RUN_SECONDS = 300.0
LOOK_SECONDS = 0.001
TICKS = os.sysconf("SC_CLK_TCK")
FILE_NAME = "tiny.gguf"


@dataclass(frozen=True, slots=True)
class Followed:
    """A download that arrived while it was followed."""

    rate: float  # bytes per second that really came
    seconds: float  # from the complete journal to the verified name
    since_last_byte: float
    cpu: float
    share: float  # of the file that was copied before the job


class Stand:
    """One store, its verifier, and the model's content in a file elsewhere."""

    def __init__(self, store: Store, verifier: VerifierProcess, redis_url: str, sha256: str, content: Path) -> None:
        self.store = store
        self._verifier = verifier
        self._redis_url = redis_url
        self._queue = VerifyQueue(RedisLink(redis_url), NODE)
        self.sha256 = sha256
        self.content = content
        self.size = content.stat().st_size
        self.data = store.layout.data(sha256)

    def leave_complete(self) -> None:
        """Leave the content in incoming, complete and durable, with nothing announced before that is followed."""
        origin = Origin(Source.HUGGINGFACE, "https://huggingface.co/org/tiny/resolve/main/tiny.gguf", "main")
        file = IncomingFile.start(self.store.layout, self.sha256, self.size, origin, "0" * 32)
        read_through(self.content, lambda buffer, offset: file.write_at(offset, buffer))
        file.complete()
        file.close()

    def verify_complete(self) -> Cost:
        """Ask for the verification of what is complete; return the seconds until it has its name, and all the CPU."""
        before, asked = self._cpu(), time.monotonic()
        promoted = self._moment_of_the_name(lambda: self._queue.enqueue(self.sha256))
        return Cost(promoted - asked, self._settled_cpu() - before)

    def follow(self, rate: float) -> Followed:
        """Let the content arrive in a process of its own while the verifier follows it."""
        order = Order(str(self.store.layout.root), self.sha256, str(self.content), rate, self._redis_url, NODE)
        before = self._cpu()
        command = [sys.executable, "-m", "benchmarks.arrival"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as arrival:
            if arrival.stdin is None:
                raise RuntimeError("the arrival has no input")
            stdin = arrival.stdin
            promoted = self._moment_of_the_name(lambda: (stdin.write(json.dumps(asdict(order))), stdin.close()))
            said = arrival.stdout.read() if arrival.stdout is not None else ""
        arrived = Arrived(**json.loads(said))
        cpu = self._settled_cpu() - before
        verified = LogReader(self._verifier.log_file, whole=True).last("verified") or {}
        return Followed(
            rate=self.size / (arrived.last_byte - arrived.first_byte),
            seconds=promoted - arrived.complete,
            since_last_byte=promoted - arrived.last_byte,
            cpu=cpu,
            share=verified["followed_bytes"] / self.size,
        )

    def clear(self) -> None:
        """Forget the model, and let that cost the next one nothing."""
        shutil.rmtree(self.store.layout.verified_dir(self.sha256), ignore_errors=True)
        shutil.rmtree(self.store.layout.incoming_dir(self.sha256), ignore_errors=True)
        for directory in (self.store.layout.verified, self.store.layout.incoming):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)

    def peak_rss(self) -> float:
        """Return the most memory that the verifier ever had, in bytes."""
        for line in Path(f"/proc/{self._verifier.process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
        raise RuntimeError("the verifier is gone")

    def _moment_of_the_name(self, begin: Callable[[], object]) -> float:
        """Begin, and return the moment at which the verified name is there; asleep until its directory is made."""
        name = self.store.layout.verified_file(self.sha256, FILE_NAME)
        made = Inotify()
        made.watch(str(self.store.layout.verified), IN_CREATE)
        begin()
        if not select.select([made.descriptor], [], [], RUN_SECONDS)[0]:
            raise RuntimeError(f"no verdict; the verifier said {self._verifier.log()[-500:]}")
        while not name.exists():
            time.sleep(LOOK_SECONDS)
        moment = time.monotonic()
        made.close()
        return moment

    def _settled_cpu(self) -> float:
        """Return the verifier's CPU seconds once all is done that a verification does."""
        receipt = self.store.layout.receipt(self.sha256)
        wait_until(lambda: receipt.exists() and not self.data.exists(), RUN_SECONDS, "incoming is removed")
        return self._cpu()

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._verifier.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def a_stand(directory: Path, notes: Path, sha256: str, content: Path) -> Iterator[Stand]:
    """Start Redis and a verifier over a store in `directory`; logs and Redis's files go to `notes`."""
    size = content.stat().st_size
    store = Store.make(directory / "models", entry(sha256, required_disk_space_gb=size / 1e9, size_bytes=size))
    with RedisServer(notes / "redis") as redis:
        verifier = VerifierProcess(store, redis.url, notes, R3MES_NODE=NODE)
        try:
            verifier.wait_until_ready()
            yield Stand(store, verifier, redis.url, sha256, content)
            verifier.terminate()
        finally:
            if verifier.process.poll() is None:
                verifier.kill()
