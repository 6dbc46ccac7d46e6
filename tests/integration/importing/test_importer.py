"""What an import finds in a store: others' bytes, others' leases, others' verdicts, and too little room."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.importing import Importer, Result
from services.downloader import run_once
from services.downloader.limits import Limits
from services.downloader.transfer import lease as leases
from services.downloader.transfer.incoming import IncomingFile, Origin
from services.downloader.transfer.space import Mode
from services.verifier.run_once import Outcome, verify_once
from shared.acceptance import load_init_settings, plan_acceptance, stage
from shared.errors import DiskFullError, IntegrityError
from shared.states import FailureReason, Source
from shared.store.records import Journal, Lease, StatIdentity
from shared.store.trust import read_trust
from shared.store.verified import has_right_receipt
from tests.support.downloader_process import MIB, Downloader, model
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.geneses import list_form
from tests.support.importing import accept, host, incoming_names, is_verified
from tests.support.verifier_store import Store

WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])


class Watcher:
    """A display that shows nothing, notes the stages in their order, and does `then` when one first begins."""

    def __init__(self, stage: str = "", then: Callable[[], object] = lambda: None) -> None:
        self.stages: list[str] = []
        self._stage = stage
        self._then = then

    def say(self, line: str) -> None:
        pass

    def progress(self, stage: str, done: int, total: int | None) -> None:  # noqa: ARG002
        if self.stages[-1:] != [stage]:
            self.stages.append(stage)
            if self.stages.count(self._stage) == 1 and stage == self._stage:
                self._then()

    def pause(self) -> None:
        pass


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine"
    file.write_bytes(DATA)
    return file


@pytest.fixture
def on(tmp_path: Path) -> Downloader:
    """A host that has accepted a genesis which pins the file."""
    on = host(tmp_path, DATA)
    accept(on)
    return on


def run(on: Downloader, file: Path, display: Watcher | None = None) -> Result:
    return Importer(on.layout, "host", display or Watcher()).run(file, threading.Event()).result


def source_of(on: Downloader) -> Source | None:
    receipt = has_right_receipt(on.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    return receipt.source


def test_a_verifier_that_is_quicker_with_the_same_file_is_no_failure(on: Downloader, file: Path) -> None:
    quicker: list[Outcome] = []

    def promote_and_be_about_to_write_the_receipt() -> None:
        quicker.append(verify_once(on.layout, DIGEST))
        on.layout.receipt(DIGEST).unlink()

    display = Watcher("verify", promote_and_be_about_to_write_the_receipt)
    assert run(on, file, display) is Result.VERIFIED
    assert quicker == [Outcome.PROMOTED]
    assert display.stages == ["hash", "copy", "verify"]
    assert is_verified(on)


def test_wrong_bytes_of_another_source_are_judged_and_the_file_takes_their_place(on: Downloader, file: Path) -> None:
    Store(on.layout).put(DIGEST, WRONG, source=Source.HUGGINGFACE)
    assert run(on, file) is Result.VERIFIED
    assert source_of(on) is Source.IMPORT
    assert len(list(on.layout.rejected.iterdir())) == 1


def test_right_bytes_of_another_source_are_verified_and_not_copied_again(on: Downloader, file: Path) -> None:
    Store(on.layout).put(DIGEST, DATA, source=Source.IPFS)
    display = Watcher()
    assert run(on, file, display) is Result.VERIFIED
    assert display.stages == ["hash", "verify"]
    assert source_of(on) is Source.IPFS


def test_a_verified_file_without_a_receipt_is_read_again_and_not_copied(on: Downloader, file: Path) -> None:
    assert run(on, file) is Result.VERIFIED
    inode = on.layout.verified_file(DIGEST, "tiny.gguf").stat().st_ino
    on.layout.receipt(DIGEST).unlink()
    display = Watcher()
    assert run(on, file, display) is Result.VERIFIED
    assert "copy" not in display.stages
    assert on.layout.verified_file(DIGEST, "tiny.gguf").stat().st_ino == inode
    assert is_verified(on)


def test_what_a_crash_left_in_incoming_after_the_promotion_is_removed(on: Downloader, file: Path) -> None:
    assert run(on, file) is Result.VERIFIED
    Store(on.layout).put(DIGEST, DATA)
    display = Watcher()
    assert run(on, file, display) is Result.ALREADY_VERIFIED
    assert display.stages == ["hash"]
    assert incoming_names(on.layout, DIGEST) == []


def test_a_staged_pin_is_verified_and_gets_no_link(tmp_path: Path, file: Path) -> None:
    on = host(tmp_path, b"another model")
    accept(on)
    on.genesis.write_bytes(list_form(model(DATA, model_name="Next", file_name="next.gguf")))
    stage(plan_acceptance(*load_init_settings(on.environ, project=on.home)))
    assert run(on, file) is Result.VERIFIED
    assert is_verified(on, DIGEST, "next.gguf")
    assert not os.path.lexists(on.layout.root / "next.gguf")


def test_a_file_in_the_place_of_the_link_gives_way_only_if_it_is_the_one_that_was_imported(
    on: Downloader, file: Path
) -> None:
    beside = on.layout.root / "tiny.gguf"
    beside.write_bytes(b"somebody's own file")
    imported = Importer(on.layout, "host", Watcher()).run(file, threading.Event())
    assert str(beside) in imported.note
    assert beside.read_bytes() == b"somebody's own file"

    on.layout.verified_file(DIGEST, "tiny.gguf").unlink()
    beside.write_bytes(DATA)
    assert run(on, beside) is Result.VERIFIED
    assert beside.is_symlink()
    assert beside.read_bytes() == DATA


def test_a_lease_that_a_dead_container_left_is_waited_out(
    on: Downloader, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_EXPIRY_SECONDS", 0.2)
    leave_lease(on)
    assert run(on, file) is Result.VERIFIED


def leave_lease(on: Downloader) -> None:
    """Leave the lease of a writer on another host."""
    on.layout.incoming_dir(DIGEST).mkdir()
    Lease(host="elsewhere", boot_id="", pid_namespace="", pid=1, instance="0" * 32, token=1, renewed_at=0.0).write(
        on.layout.lease(DIGEST)
    )


def test_a_stop_while_a_lease_is_waited_for_ends_it(on: Downloader, file: Path) -> None:
    leave_lease(on)
    stop = threading.Event()
    stop.set()
    pin = read_trust(on.layout).genesis.models[0]
    assert isinstance(run_once.adopt_once(on.layout, pin, file, stop=stop), run_once.Interrupted)
    assert incoming_names(on.layout, DIGEST) == ["lease.json"]


def test_a_file_that_changed_after_it_was_hashed_is_hashed_again_and_left_alone(on: Downloader, file: Path) -> None:
    hashed = StatIdentity.of(file.stat())
    file.write_bytes(WRONG)
    pin = read_trust(on.layout).genesis.models[0]
    outcome = run_once.adopt_once(on.layout, pin, file, hashed=hashed)
    assert isinstance(outcome, run_once.SourceFailed)
    assert outcome.reason is FailureReason.HASH_MISMATCH
    assert incoming_names(on.layout, DIGEST) == []


def test_a_size_that_the_genesis_gives_wrongly_is_an_integrity_error(tmp_path: Path, file: Path) -> None:
    on = host(tmp_path, model(DATA, size_bytes=len(DATA) - 1))
    accept(on)
    with pytest.raises(IntegrityError, match=str(len(DATA) - 1)):
        run(on, file)
    assert incoming_names(on.layout, DIGEST) == []


@pytest.fixture
def one_copy(tmp_path: Path) -> Iterator[Downloader]:
    """A host with room for the margin and one copy of the file, and a little."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={258 * MIB + len(DATA)}", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    on = host(path, DATA)
    accept(on)
    yield on
    subprocess.run(["umount", "-l", path], check=True)


def test_room_for_one_copy_and_no_verifier_to_follow_is_a_full_disk(
    one_copy: Downloader, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_once, "_VERIFIER_SECONDS", 0.3)
    pin = read_trust(one_copy.layout).genesis.models[0]
    begun = Origin(Source.IMPORT, file.as_uri(), "")
    IncomingFile.start(one_copy.layout, DIGEST, len(DATA), begun, "0" * 32, Mode.LOW_SPACE).close()
    outcome = run_once.adopt_once(one_copy.layout, pin, file, limits=Limits(ahead_bytes=MIB))
    assert isinstance(outcome, run_once.NoRoom)
    assert "one copy only" in outcome.message
    journal = Journal.read(one_copy.layout.journal(DIGEST))
    assert journal is not None
    assert journal.mode == "low-space"
    assert 0 < journal.durable_prefix <= MIB


def test_a_copy_for_which_the_verifier_has_no_room_says_how_much_is_missing(one_copy: Downloader, file: Path) -> None:
    """Another process takes the room while the file is copied."""
    ballast = one_copy.home / "ballast"

    def fill() -> None:
        free = os.statvfs(one_copy.layout.root)
        with ballast.open("wb") as taken:
            os.posix_fallocate(taken.fileno(), 0, free.f_bavail * free.f_frsize - MIB)

    pin = read_trust(one_copy.layout).genesis.models[0]
    assert run_once.adopt_once(one_copy.layout, pin, file) == run_once.Completed(len(DATA))
    fill()
    with pytest.raises(DiskFullError, match="the verified copy needs") as raised:
        run(one_copy, file)
    assert raised.value.missing_bytes == pytest.approx(len(DATA) - MIB, abs=64 * 1024)
    ballast.unlink()
    assert run(one_copy, file) is Result.VERIFIED
