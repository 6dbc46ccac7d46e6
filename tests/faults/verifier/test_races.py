"""A live attacker with a writable descriptor and a shared mapping of the incoming file, before, during and after."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from services.verifier import follower, private_copy
from services.verifier.run_once import Outcome, verify_once
from tests.support.crash_child import context
from tests.support.slow_download import Download
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store, entry, hash_of_file, sha256_of

CONTENT = os.urandom(256 * 1024)
DIGEST = sha256_of(CONTENT)
TRIALS = 200
CONTROL_TRIALS = 40


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


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    here, there = context.Pipe()
    process = context.Process(target=attack, args=(there,), daemon=True)
    process.start()
    yield Attacker(here)
    here.send(None)
    process.join(10)
    if process.is_alive():
        process.kill()


def leave_complete(store: Store) -> None:
    store.put(DIGEST, CONTENT)


def promoted_with_other_bytes(
    store: Store,
    attacker: Attacker,
    trials: int,
    verify: Callable[[Store], None],
    arrive: Callable[[Store], object] = leave_complete,
) -> tuple[int, int]:
    """Return in how many trials a file was promoted, and in how many it had other bytes in the end."""
    promoted = wrong = 0
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    for _trial in range(trials):
        arrive(store)
        with attacker.attacking(store.layout.data(DIGEST)):
            verify(store)
        if file.exists():
            promoted += 1
            wrong += hash_of_file(file) != DIGEST
            file.unlink()
            store.layout.receipt(DIGEST).unlink(missing_ok=True)
        for record in store.layout.rejected.iterdir():
            record.unlink()
    return promoted, wrong


@pytest.mark.slow
def test_an_attacker_who_holds_the_file_open_gets_nothing_else_promoted(tmp_path: Path, attacker: Attacker) -> None:
    store = Store.make(tmp_path / "models", entry(CONTENT))
    seen: set[Outcome] = set()
    promoted, wrong = promoted_with_other_bytes(
        store, attacker, TRIALS, lambda store: seen.add(verify_once(store.layout, DIGEST))
    )
    assert wrong == 0
    assert promoted > 0, "the attack never let a right copy through, so nothing was shown"
    assert seen <= {Outcome.PROMOTED, Outcome.REJECTED}


@pytest.mark.slow
def test_an_attacker_gets_nothing_else_promoted_while_the_download_is_followed(
    tmp_path: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((follower, "STEP_BYTES"), (follower, "TURN_BYTES"), (private_copy, "BUFFER_BYTES")):
        monkeypatch.setattr(module, name, 64 * 1024)
    store = Store.make(tmp_path / "models", entry(CONTENT))
    verifier = make_verifier(store)
    steps = follower.Follower(verifier)
    downloads: list[Download] = []
    copied = 0

    def arrive(store: Store) -> None:
        downloads[:] = [Download(store, CONTENT)]
        downloads[0].receive(len(CONTENT) - 1)

    def follow_and_verify(_store: Store) -> None:
        nonlocal copied
        while steps.step(DIGEST):
            pass
        begun = verifier.copies.get(DIGEST)
        copied += begun.copy.hashing.done if begun is not None else 0
        downloads[0].complete()
        verifier.verify(DIGEST)

    promoted, wrong = promoted_with_other_bytes(store, attacker, TRIALS, follow_and_verify, arrive)
    assert wrong == 0
    assert promoted > 0, "the attack never let a right copy through, so nothing was shown"
    assert copied == TRIALS * (len(CONTENT) - 64 * 1024), "all but the last step was copied while under attack"


@pytest.mark.slow
def test_the_same_attacker_wins_against_hashing_and_renaming(tmp_path: Path, attacker: Attacker) -> None:
    """The control: without a private copy the same attack promotes other bytes."""
    store = Store.make(tmp_path / "models", entry(CONTENT))

    def naive(store: Store) -> None:
        data = store.layout.data(DIGEST)
        if hash_of_file(data) == DIGEST:
            store.layout.verified_dir(DIGEST).mkdir(exist_ok=True)
            data.chmod(0o444)
            data.rename(store.layout.verified_file(DIGEST, "tiny.gguf"))

    promoted, wrong = promoted_with_other_bytes(store, attacker, CONTROL_TRIALS, naive)
    assert promoted > 0
    assert wrong == promoted
