"""States that a crash, a second writer or an odd file system leaves once in years: each has its answer."""

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import existing, follower, incoming
from services.verifier.follower import Follower
from services.verifier.incoming import open_incoming
from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from shared.store.layout import StoreLayout
from tests.support.slow_download import Download
from tests.support.verifier_stand import DIGEST, RIGHT, value
from tests.support.verifier_store import Store


def promoted(store: Store, verifier: Verifier) -> Path:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    return store.layout.verified_file(DIGEST, "tiny.gguf")


# Step 0.


def test_the_same_bytes_under_other_names_are_removed_and_the_pinned_name_stays(
    store: Store, verifier: Verifier
) -> None:
    file = promoted(store, verifier)
    inode = file.stat().st_ino
    for name in ("another.gguf", "third.gguf"):
        (file.parent / name).write_bytes(RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]
    assert file.stat().st_ino == inode


def test_right_bytes_under_another_name_take_the_place_of_wrong_ones_under_the_pinned(
    store: Store, verifier: Verifier
) -> None:
    file = promoted(store, verifier)
    file.rename(file.parent / "another.gguf")
    file.write_bytes(b"wrong")
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert store.verified_names(DIGEST) == ["receipt.json", "tiny.gguf"]
    assert file.read_bytes() == RIGHT


def test_a_stop_while_a_verified_file_is_hashed_again_decides_nothing(store: Store, verifier: Verifier) -> None:
    file = promoted(store, verifier)
    store.layout.receipt(DIGEST).unlink()
    store.put(DIGEST, RIGHT)
    verifier.stop.set()
    assert verifier.verify(DIGEST) is Outcome.STOPPED
    assert file.read_bytes() == RIGHT
    assert store.layout.data(DIGEST).exists()
    assert read_rejected(store.layout, DIGEST) == {}


def test_a_stop_while_a_verified_file_is_hashed_again_is_told_as_one_without_a_download_too(
    store: Store, verifier: Verifier
) -> None:
    promoted(store, verifier)
    store.layout.receipt(DIGEST).unlink()
    verifier.stop.set()
    assert verifier.verify(DIGEST) is Outcome.STOPPED


def test_a_file_is_told_as_read_again_only_when_it_was(store: Store, verifier: Verifier) -> None:
    promoted(store, verifier)
    known = existing.Provenance("0" * 64)
    assert verifier.existing.settle(DIGEST, "tiny.gguf", known) == existing.Settled("tiny.gguf")
    store.layout.receipt(DIGEST).unlink()
    assert verifier.existing.settle(DIGEST, "tiny.gguf", known) == existing.Settled("tiny.gguf", rehashed=1)


def test_a_store_without_a_verified_directory_has_no_verified_digests(tmp_path: Path) -> None:
    assert existing.verified_digest_dirs(StoreLayout(tmp_path / "nothing")) == []


def test_what_was_followed_is_let_go_once_the_file_is_verified_by_somebody_else(
    store: Store, verifier: Verifier
) -> None:
    Download(store, RIGHT).receive(len(RIGHT) - 1)
    Follower(verifier).step(DIGEST)
    assert verifier.copies.digests() == {DIGEST}
    store.layout.verified_dir(DIGEST).mkdir()
    store.layout.verified_file(DIGEST, "tiny.gguf").write_bytes(RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ALREADY_VERIFIED
    assert verifier.copies.digests() == set()


# Removing incoming.


def test_data_that_is_gone_when_it_is_to_be_removed_is_no_error(store: Store) -> None:
    journal = store.put(DIGEST, RIGHT)
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        store.layout.data(DIGEST).unlink()
        assert opened.remove(journal.generation) is False
    assert store.layout.journal(DIGEST).exists(), "nothing that was read was there to be removed"


def test_the_journal_of_another_generation_outlives_the_data_that_was_read(store: Store) -> None:
    read = store.put(DIGEST, RIGHT)
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        newer = store.write_journal(DIGEST, size=len(RIGHT))
        assert opened.remove(read.generation) is True
    assert not store.layout.data(DIGEST).exists()
    assert newer.generation in store.layout.journal(DIGEST).read_text()


def test_a_link_to_the_file_that_was_read_is_not_that_file(store: Store, tmp_path: Path) -> None:
    journal = store.put(DIGEST, RIGHT)
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        store.layout.data(DIGEST).rename(tmp_path / "elsewhere")
        store.layout.data(DIGEST).symlink_to(tmp_path / "elsewhere")
        assert opened.is_still_data() is False
        assert opened.remove(journal.generation) is False
    assert store.layout.data(DIGEST).is_symlink()
    assert store.layout.journal(DIGEST).exists()


def test_of_claimed_data_and_new_data_the_one_that_the_journal_names_stays(store: Store, verifier: Verifier) -> None:
    journal = store.put(DIGEST, RIGHT)
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    store.layout.data(DIGEST).rename(claimed)
    store.layout.data(DIGEST).write_bytes(b"begun, and no journal yet")
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert list(store.layout.incoming_dir(DIGEST).iterdir()) == []


def test_a_claimed_link_to_what_the_journal_names_is_not_what_it_names(store: Store, tmp_path: Path) -> None:
    journal = store.put(DIGEST, RIGHT)
    data = store.layout.data(DIGEST)
    data.rename(tmp_path / "elsewhere")
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    claimed.symlink_to(tmp_path / "elsewhere")
    data.write_bytes(b"begun, and no journal yet")
    incoming.sweep_claimed(store.layout, DIGEST)
    assert not data.is_symlink()
    assert not claimed.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == RIGHT


def test_a_journal_that_is_a_link_to_nothing_is_a_bad_one_and_not_none(store: Store) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.journal(DIGEST).unlink()
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        assert opened.lacks_journal() is True
        store.layout.journal(DIGEST).symlink_to("nowhere")
        assert opened.lacks_journal() is False


def test_claimed_data_that_cannot_be_put_back_waits_for_the_next_start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = store.put(DIGEST, RIGHT)
    claimed = store.layout.incoming_dir(DIGEST) / f".claimed-{journal.generation}"
    store.layout.data(DIGEST).rename(claimed)

    def refuse(*_arguments: object, **_more: object) -> None:
        raise PermissionError

    monkeypatch.setattr(incoming, "rename_noreplace", refuse)
    assert incoming.sweep_claimed(store.layout, DIGEST) == 0
    assert claimed.read_bytes() == RIGHT


def test_lost_bytes_whose_data_cannot_be_removed_are_recorded_and_not_counted_as_deleted(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    journal = store.put(DIGEST, RIGHT)
    with open_incoming(store.layout, DIGEST) as opened:
        assert opened is not None
        store.layout.data(DIGEST).unlink()
        verifier.void("0" * 64, opened, journal, "lost")
    (record,) = read_rejected(store.layout, DIGEST).values()
    assert (record.reason, record.source) == ("bytes_lost", None)
    assert value(registry, "r3mes_deletions_total", reason="bytes_lost") == 0


# Following.


def test_without_an_incoming_directory_there_is_nothing_to_follow(store: Store, verifier: Verifier) -> None:
    store.layout.incoming.rmdir()
    assert Follower(verifier).candidates() == set()


def test_the_same_complaint_is_made_once(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follower, "REST_SECONDS", 0.0)
    steps = Follower(verifier)
    Download(store, RIGHT).receive(len(RIGHT))
    store.layout.data(DIGEST).unlink()
    os.mkfifo(store.layout.data(DIGEST))
    for _again in range(3):
        assert steps.step(DIGEST) is False
    assert capsys.readouterr().out.count("cannot follow") == 1


def test_on_a_kernel_that_hides_its_boot_id_a_writer_is_believed_once_it_renewed(
    store: Store, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(_path: Path, **_more: object) -> str:
        raise FileNotFoundError

    with monkeypatch.context() as kernel:
        kernel.setattr(Path, "read_text", hidden)
        steps = Follower(verifier)
    download = Download(store, RIGHT)
    download.receive(len(RIGHT))
    steps.step(DIGEST)
    assert verifier.copies.get(DIGEST) is None
    download.renew()
    steps.step(DIGEST)
    assert verifier.copies.get(DIGEST) is not None
