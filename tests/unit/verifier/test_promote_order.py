"""The order in which a promotion changes the disk: each step is durable before the next one speaks of it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from services.verifier import incoming as incoming_module
from services.verifier import linux
from services.verifier import promote as promote_module
from services.verifier.rejected import remove_rejected
from services.verifier.verification import Outcome, Verifier
from tests.support.verifier_stand import DIGEST, RIGHT, flip
from tests.support.verifier_store import Store, entry
from tests.unit.verifier.test_file_systems import without_tmpfile


class Steps:
    """What changed the disk or synced it, in order, by the names of what it was done to."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = store.layout.root
        self.taken: list[str] = []
        self._record(monkeypatch, os, "fsync", lambda descriptor: f"sync {self._name(descriptor)}")
        self._record(monkeypatch, os, "link", lambda *_a, dst_dir_fd, **_m: f"link in {self._name(dst_dir_fd)}")
        self._record(monkeypatch, os, "unlink", lambda name, **_more: f"unlink {Path(name).name}")
        self._record(monkeypatch, Path, "mkdir", lambda path, *_a, **_m: f"mkdir {path.name}")
        for module in (promote_module, incoming_module):
            self._record(
                monkeypatch,
                module,
                "rename_noreplace",
                lambda source, target, **_more: f"rename {self._plain(source)} to {self._plain(target)}",
            )

    def _record(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str, tell: Callable[..., str]) -> None:
        real = linux.rename_noreplace if name == "rename_noreplace" else getattr(module, name)

        def call(*arguments: object, **more: object) -> object:
            self.taken.append(tell(*arguments, **more))
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    def _name(self, descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - the link of a descriptor
        if path.name.endswith("(deleted)"):
            return "the copy"
        return self._plain(str(path.relative_to(self._root)))

    @staticmethod
    def _plain(name: str) -> str:
        name = name.replace(DIGEST, "<digest>")
        return ".claimed" if name.startswith(".claimed-") else name


def is_subsequence(wanted: list[str], taken: list[str]) -> bool:
    rest = iter(taken)
    return all(step in rest for step in wanted)


def test_bytes_directory_name_receipt_and_only_then_incoming(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    steps = Steps(store, monkeypatch)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    wanted = [
        "sync the copy",
        f"mkdir {DIGEST}",
        "sync verified",
        "link in verified/<digest>",
        "sync verified/<digest>",
        "sync verified/<digest>",  # once more, for the receipt
        "rename data to .claimed",
        "unlink journal.json",
    ]
    assert is_subsequence(wanted, steps.taken), steps.taken
    assert steps.taken.index("sync the copy") < steps.taken.index("link in verified/<digest>")


def test_a_named_copys_old_name_is_gone_for_good_before_incoming_is(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch)
    store.put(DIGEST, RIGHT)
    steps = Steps(store, monkeypatch)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    (renamed,) = [step for step in steps.taken if step.endswith(" to tiny.gguf")]
    wanted = ["sync verified", renamed, "sync verified/<digest>", "sync verified/.partial", "rename data to .claimed"]
    assert is_subsequence(wanted, steps.taken), steps.taken


def test_the_record_of_a_mismatch_is_durable_before_incoming_is_touched(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, flip(RIGHT, 3))
    steps = Steps(store, monkeypatch)
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    assert is_subsequence(["sync rejected", "rename data to .claimed", "unlink journal.json"], steps.taken)
    assert not [step for step in steps.taken if step.startswith(("link", "mkdir"))]


def test_a_file_that_is_hashed_again_is_durable_before_its_receipt_lets_incoming_go(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    store.layout.receipt(DIGEST).unlink()
    store.put(DIGEST, RIGHT)
    steps = Steps(store, monkeypatch)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    wanted = ["sync verified/<digest>/tiny.gguf", "sync verified/<digest>", "rename data to .claimed"]
    assert is_subsequence(wanted, steps.taken), steps.taken


def test_what_is_quarantined_is_out_for_good_before_the_record_is_written(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    file = store.layout.verified_file(DIGEST, "tiny.gguf")
    file.chmod(0o644)
    file.write_bytes(flip(RIGHT, 3))
    steps = Steps(store, monkeypatch)
    verifier.verify(DIGEST)
    wanted = ["unlink receipt.json", "unlink tiny.gguf", "sync verified/<digest>", "sync rejected"]
    assert is_subsequence(wanted, steps.taken), steps.taken


def test_a_new_name_is_durable_before_its_receipt_is_written(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    store.accept(entry(RIGHT, file_name="renamed.gguf"))
    steps = Steps(store, monkeypatch)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    # Once for the name, once for the receipt.
    assert steps.taken.count("sync verified/<digest>") == 2


@pytest.mark.parametrize("is_verified", [True, False])
def test_data_is_claimed_under_a_name_that_a_later_start_knows(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, is_verified: bool
) -> None:
    claimed: list[str] = []
    real = incoming_module.rename_noreplace

    def rename(source: str, target: str, **descriptors: int) -> None:
        claimed.append(target)
        real(source, target, **descriptors)

    if is_verified:
        store.put(DIGEST, RIGHT)
        verifier.verify(DIGEST)
    store.put(DIGEST, RIGHT)
    monkeypatch.setattr(incoming_module, "rename_noreplace", rename)
    verifier.verify(DIGEST)
    (name,) = claimed
    assert re.fullmatch(r"\.claimed-[0-9a-f]{32}", name)


def test_records_that_are_removed_are_gone_for_good(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, flip(RIGHT, 3))
    assert verifier.verify(DIGEST) is Outcome.REJECTED
    steps = Steps(store, monkeypatch)
    assert remove_rejected(store.layout, DIGEST) == 1
    assert steps.taken[-1] == "sync rejected"
    assert list(store.layout.rejected.iterdir()) == []


def test_a_record_that_somebody_else_removes_meanwhile_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_arguments: [store.layout.rejected_file(DIGEST, 1)])
    assert remove_rejected(store.layout, DIGEST) == 1
