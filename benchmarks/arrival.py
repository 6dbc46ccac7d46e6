"""A process that plays the downloader: `python -m benchmarks.arrival`, what it should do as JSON on its input.

The bytes come from a file in memory at a given rate; writing, syncing, journals and lease are the downloader's own
(FileKeeper, LeaseKeeper), and the job is enqueued as its courier does. Its output is an `Arrived` as JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.transfer.file_keeper import FileKeeper
from services.downloader.transfer.incoming import Origin, prepare_directory
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.source_clock import SourceClock
from services.downloader.transfer.space import Room
from shared.genesis import ModelPin
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from shared.states import Source
from shared.store.layout import StoreLayout
from shared.store.trust import TrustWatch

PIECE_BYTES = 1024 * 1024
RENEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to arrive where; `rate` in bytes per second."""

    root: str
    sha256: str
    content: str
    rate: float
    redis_url: str
    node: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """Moments of the monotonic clock, which all processes of a machine share."""

    first_byte: float
    last_byte: float
    complete: float  # the journal says so
    enqueued: float


def keeper_of(layout: StoreLayout, sha256: str, pin: ModelPin, identity: Identity, limits: Limits) -> FileKeeper:
    """Return the downloader's own writer, with the lease taken."""
    prepare_directory(layout, sha256)
    leases = LeaseKeeper(identity)
    held = leases.acquire(layout.lease(sha256))
    if held is None:
        raise SystemExit("another writer has the lease")

    def renew() -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            leases.renew(layout.lease(sha256), held)

    threading.Thread(target=renew, daemon=True).start()
    free = os.statvfs(layout.incoming)
    return FileKeeper(
        layout,
        pin,
        identity.instance,
        limits,
        SourceClock(),
        Interrupt(),
        room=lambda: Room(free=free.f_bavail * free.f_frsize),
        holds_lease=lambda: leases.still_holds(layout.lease(sha256), held),
        beginning=threading.Lock(),
    )


def arrive(order: Order) -> Arrived:
    """Let the content arrive at its rate, then ask for its verification."""
    layout = StoreLayout(Path(order.root))
    trust = TrustWatch(layout)
    trust.poll()
    pin = trust.current.genesis.by_digest(order.sha256)
    if pin is None:
        raise SystemExit("not pinned")
    queue = VerifyQueue(RedisLink(order.redis_url), order.node)
    keeper = keeper_of(layout, order.sha256, pin, Identity.of_this_process(), Limits())
    with Path(order.content).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        view = memoryview(content)
        keeper.begin(len(view), Origin(Source.HUGGINGFACE, pin.download_source, "main"))
        keeper.start()
        first = time.monotonic()
        for offset in range(0, len(view), PIECE_BYTES):
            piece = view[offset : offset + PIECE_BYTES]
            time.sleep(max(0.0, first + (offset + len(piece)) / order.rate - time.monotonic()))
            keeper.write(offset, piece)
            piece.release()
        last = time.monotonic()
        keeper.complete()
        complete = time.monotonic()
        queue.enqueue(order.sha256)
        enqueued = time.monotonic()
        view.release()
    keeper.stop()
    return Arrived(first, last, complete, enqueued)


def main() -> None:
    print(json.dumps(asdict(arrive(Order(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
