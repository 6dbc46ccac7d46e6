"""Somebody who holds the incoming file open for writing and mapped, in a process of its own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.crash_child import context


def attack(pipe: Connection) -> None:
    """Flip a byte and flip it back, over and over, until told to stop; then leave it wrong."""
    while (path := pipe.recv()) is not None:
        descriptor = os.open(path, os.O_RDWR)
        with mmap.mmap(descriptor, 0, mmap.MAP_SHARED) as mapping:
            pipe.send("attacking")
            place = 0
            while not pipe.poll():
                for _burst in range(200):
                    place = (place + 4099) % len(mapping)
                    mapping[place] ^= 1
                    mapping[place] ^= 1
            pipe.recv()
            mapping[place] ^= 1
            os.pwrite(descriptor, b"overwritten", len(mapping) // 2)
        os.close(descriptor)
        pipe.send("done")


class Attacker:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    @contextmanager
    def attacking(self, path: Path) -> Iterator[None]:
        """Attack while the block runs, and leave the last change when it ends."""
        self._pipe.send(path)
        assert self._pipe.recv() == "attacking"
        yield
        self._pipe.send("stop")
        assert self._pipe.recv() == "done"


@contextmanager
def an_attacker() -> Iterator[Attacker]:
    """Start an attacker who ends with the block."""
    here, there = context.Pipe()
    process = context.Process(target=attack, args=(there,), daemon=True)
    process.start()
    yield Attacker(here)
    here.send(None)
    process.join(10)
    if process.is_alive():
        process.kill()
