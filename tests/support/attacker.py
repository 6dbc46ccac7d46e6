"""Someone with a writable descriptor and a shared mapping of a file, who changes it while others work on it."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.crash_child import context

SECONDS = 30.0
BURST = 200  # changes between two looks at whether it is over
STRIDE = 4099  # walks through every page, at another place of each

# Where to flip a byte next, of a file of so many bytes.
_Place = Callable[[random.Random, int, int], int]
_PLACES: dict[str, _Place] = {
    "everywhere": lambda _chance, place, size: (place + STRIDE) % size,
    "at random": lambda chance, _place, size: chance.randrange(size),
    "the first byte": lambda _chance, _place, _size: 0,
    "the last byte": lambda _chance, _place, size: size - 1,
    "through the descriptor": lambda _chance, place, size: (place + STRIDE) % size,
    "the size": lambda _chance, place, _size: place,
}
ATTACKS = tuple(_PLACES)
KEEPING_THE_SIZE = tuple(attack for attack in ATTACKS if attack != "the size")


class Attacker:
    """A process that attacks one file at a time."""

    def __init__(self) -> None:
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_attack_until_told, args=(there,), daemon=True)
        self._process.start()
        there.close()

    @contextmanager
    def attacking(self, path: Path, attack: str, seed: int) -> Iterator[None]:
        """Attack while the block runs, and leave a last change, by descriptor and by mapping, when it ends."""
        self._pipe.send((path, attack, seed))
        assert self._answer() == "attacking"
        yield
        self._pipe.send("stop")
        assert self._answer() == "done"

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(SECONDS)
        if self._process.exitcode is None:
            self._process.kill()

    def _answer(self) -> str:
        assert self._pipe.poll(SECONDS), "the attacker does not answer"
        return str(self._pipe.recv())


def _attack_until_told(pipe: Connection) -> None:
    while True:
        try:
            path, attack, seed = pipe.recv()
        except EOFError:
            return
        descriptor = os.open(path, os.O_RDWR)
        try:
            _attack(pipe, descriptor, attack, random.Random(seed))  # noqa: S311 - where a byte is flipped
        finally:
            os.close(descriptor)
        pipe.send("done")


def _attack(pipe: Connection, descriptor: int, attack: str, chance: random.Random) -> None:
    """Change something and change it back, over and over, until told to stop; then leave it changed."""
    size = os.fstat(descriptor).st_size
    next_place, place = _PLACES[attack], chance.randrange(size)
    with mmap.mmap(descriptor, size, mmap.MAP_SHARED) as mapping:
        pipe.send("attacking")
        while not pipe.poll():
            for _change in range(BURST):
                place = next_place(chance, place, size)
                match attack:
                    case "the size":
                        os.ftruncate(descriptor, size + 1)
                        os.ftruncate(descriptor, size)
                    case "through the descriptor":
                        right = mapping[place]
                        os.pwrite(descriptor, bytes([right ^ 1]), place)
                        os.pwrite(descriptor, bytes([right]), place)
                    case _:
                        mapping[place] ^= 1
                        mapping[place] ^= 1
        pipe.recv()
        mapping[place] ^= 1
        os.pwrite(descriptor, b"overwritten", size // 2)
