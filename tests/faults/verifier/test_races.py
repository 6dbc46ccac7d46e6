"""A live attacker with a writable descriptor and a shared mapping of the incoming file, before, during and after.

After each trial the attacker, who never let go, changes the file once more; then whatever was promoted is hashed.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.verifier import follower, private_copy
from services.verifier.run_once import Outcome, verify_once
from tests.support.attacker import ATTACKS, KEEPING_THE_SIZE, Attacker
from tests.support.slow_download import Download
from tests.support.small_disk import small_disk
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store, entry, hash_of_file, sha256_of

STEP = 64 * 1024
SIZES = (1, 4096, 65_537, 256 * 1024, 1024 * 1024 + 511, 3_000_001)
FOLLOWED_SIZES = (STEP + 1, 256 * 1024, 1024 * 1024 + 511, 3_000_001)
DISK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Model:
    name: str
    content: bytes
    digest: str


def models_of(sizes: tuple[int, ...]) -> list[Model]:
    contents = [random.Random(size).randbytes(size) for size in sizes]  # noqa: S311 - content, not a secret
    return [Model(f"model-{len(content)}", content, sha256_of(content)) for content in contents]


def make_store(root: Path, models: list[Model]) -> Store:
    return Store.make(root, *(entry(model.content, model.name) for model in models))


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    attacker = Attacker()
    yield attacker
    attacker.close()


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "disk":
        yield tmp_path / "models"
        return
    with small_disk(tmp_path / "memory", DISK_BYTES) as memory:
        yield memory / "models"


class Trials:
    """One attack after another on models of one store; counts how each ended."""

    def __init__(self, store: Store, attacker: Attacker, models: list[Model], attacks: tuple[str, ...]) -> None:
        self.store = store
        self.outcomes: Counter[Outcome | None] = Counter()
        self.promoted = 0
        self.wrong = 0
        self._attacker = attacker
        self._pairs = itertools.cycle(itertools.product(models, attacks))

    def run(
        self,
        trials: int,
        verify: Callable[[Model], Outcome | None],
        arrive: Callable[[Model], object] | None = None,
    ) -> None:
        layout = self.store.layout
        for trial, (model, attack) in enumerate(itertools.islice(self._pairs, trials)):
            if arrive is None:
                self.store.put(model.digest, model.content)
            else:
                arrive(model)
            with self._attacker.attacking(layout.data(model.digest), attack, seed=trial):
                self.outcomes[verify(model)] += 1
            file = layout.verified_file(model.digest, f"{model.name}.gguf")
            if file.exists():
                self.promoted += 1
                self.wrong += hash_of_file(file) != model.digest
                file.unlink()
                layout.receipt(model.digest).unlink(missing_ok=True)
            for record in layout.rejected.iterdir():
                record.unlink()

    def assert_nothing_else_was_promoted(self, trials: int) -> None:
        """No file has other bytes; and some trials let the right ones through, or nothing would have been shown."""
        assert self.wrong == 0
        assert self.promoted == self.outcomes[Outcome.PROMOTED] > 0
        assert self.outcomes[Outcome.PROMOTED] + self.outcomes[Outcome.REJECTED] == trials, self.outcomes


def attack_verification(store: Store, attacker: Attacker, models: list[Model], trials: int) -> Trials:
    run = Trials(store, attacker, models, ATTACKS)
    run.run(trials, lambda model: verify_once(store.layout, model.digest))
    return run


def attack_following(
    store: Store, attacker: Attacker, models: list[Model], trials: int, monkeypatch: pytest.MonkeyPatch
) -> Trials:
    """All but the last step of each file is copied by a follower, under attack."""
    for module, name in ((follower, "STEP_BYTES"), (follower, "TURN_BYTES"), (private_copy, "BUFFER_BYTES")):
        monkeypatch.setattr(module, name, STEP)
    run = Trials(store, attacker, models, KEEPING_THE_SIZE)
    verifier = make_verifier(store)
    steps = follower.Follower(verifier)
    downloads: list[Download] = []

    def arrive(model: Model) -> None:
        downloads[:] = [Download(store, model.content)]
        downloads[0].receive(len(model.content) - 1)

    def follow_and_verify(model: Model) -> Outcome:
        while steps.step(model.digest):
            pass
        begun = verifier.copies.get(model.digest)
        copied = begun.copy.hashing.done if begun is not None else 0
        assert copied == (len(model.content) - 1) // STEP * STEP, "all but the last step is copied while under attack"
        downloads[0].complete()
        return verifier.verify(model.digest)

    run.run(trials, follow_and_verify, arrive)
    return run


@pytest.mark.slow
def test_an_attacker_who_holds_the_file_open_gets_nothing_else_promoted(tmp_path: Path, attacker: Attacker) -> None:
    models = models_of(SIZES)
    trials = attack_verification(make_store(tmp_path / "models", models), attacker, models, 72)
    trials.assert_nothing_else_was_promoted(72)


@pytest.mark.slow
def test_an_attacker_gets_nothing_else_promoted_while_the_download_is_followed(
    tmp_path: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = models_of(FOLLOWED_SIZES)
    trials = attack_following(make_store(tmp_path / "models", models), attacker, models, 40, monkeypatch)
    trials.assert_nothing_else_was_promoted(40)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_in_hundreds_of_trials_an_attacker_gets_nothing_else_promoted(place: Path, attacker: Attacker) -> None:
    """About four in five are promoted, the others rejected."""
    models = models_of(SIZES)
    trials = attack_verification(make_store(place, models), attacker, models, 540)
    trials.assert_nothing_else_was_promoted(540)
    assert trials.outcomes[Outcome.REJECTED] > 0, "the attack never hit"


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_in_hundreds_of_trials_an_attacker_gets_nothing_else_promoted_while_it_is_followed(
    place: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About one in seven is rejected: what does not match in the copy made along the way is read once more."""
    models = models_of(FOLLOWED_SIZES)
    trials = attack_following(make_store(place, models), attacker, models, 220, monkeypatch)
    trials.assert_nothing_else_was_promoted(220)
    assert trials.outcomes[Outcome.REJECTED] > 0, "the attack never hit"


@pytest.mark.slow
def test_the_same_attacker_wins_against_hashing_and_renaming(tmp_path: Path, attacker: Attacker) -> None:
    """The control: without a private copy the same attack promotes other bytes."""
    models = models_of(SIZES)
    store = make_store(tmp_path / "models", models)

    def naive(model: Model) -> None:
        data = store.layout.data(model.digest)
        if hash_of_file(data) == model.digest:
            store.layout.verified_dir(model.digest).mkdir(exist_ok=True)
            data.chmod(0o444)
            data.rename(store.layout.verified_file(model.digest, f"{model.name}.gguf"))

    trials = Trials(store, attacker, models, ATTACKS)
    trials.run(72, naive)
    assert trials.promoted > 0
    assert trials.wrong == trials.promoted
