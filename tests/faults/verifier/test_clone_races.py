"""A live attacker with a writable descriptor and a shared mapping, against copies that share his file's extents."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.verifier import follower
from services.verifier.cloned_copy import ClonedCopy
from services.verifier.follower import Follower
from services.verifier.verification import Outcome
from tests.support.attacker import ATTACKS, Attacker
from tests.support.reflink_disk import SHARING, disk_of
from tests.support.slow_download import Download
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store, entry, hash_of_file, sha256_of

CONTENT = os.urandom(256 * 1024 + 5)
DIGEST = sha256_of(CONTENT)
STEP_BYTES = 64 * 1024
TRIALS = 40


@pytest.fixture(params=SHARING)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with disk_of(request.param, tmp_path) as disk:
        yield Store.make(disk / "models", entry(CONTENT))


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    attacker = Attacker()
    yield attacker
    attacker.close()


@pytest.mark.slow
@pytest.mark.parametrize("followed", [False, True], ids=["complete", "followed"])
def test_an_attacker_gets_nothing_else_promoted_than_what_was_hashed(
    store: Store, attacker: Attacker, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    for name in ("STEP_BYTES", "TURN_BYTES"):
        monkeypatch.setattr(follower, name, STEP_BYTES)
    verifier = make_verifier(store)
    steps = Follower(verifier)
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    promoted = wrong = cloned = 0
    outcomes: Counter[Outcome] = Counter()
    for trial in range(TRIALS):
        download = Download(store, CONTENT)
        download.receive(len(CONTENT) - 1)
        with attacker.attacking(store.layout.data(DIGEST), ATTACKS[trial % len(ATTACKS)], trial):
            while followed and steps.step(DIGEST):
                pass
            begun = verifier.copies.get(DIGEST)
            cloned += begun is not None and isinstance(begun.copy, ClonedCopy)
            download.complete()
            outcomes[verifier.verify(DIGEST)] += 1
        if file.exists():
            promoted += 1
            wrong += hash_of_file(file) != DIGEST
            file.unlink()
            store.layout.receipt(DIGEST).unlink(missing_ok=True)
        for record in store.layout.rejected.iterdir():
            record.unlink()
    assert wrong == 0
    assert promoted > 0, "the attack never let a right copy through, so nothing was shown"
    assert outcomes[Outcome.PROMOTED] == promoted
    assert cloned >= (TRIALS // 2 if followed else 0), f"hardly a clone was followed: {outcomes}"
