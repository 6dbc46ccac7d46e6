"""What is no plain file, or lies behind a link, is neither read nor followed."""

import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.rejected import read_rejected
from services.verifier.verification import Outcome, Verifier
from tests.support.unprivileged import unprivileged
from tests.support.verifier_stand import DIGEST, RIGHT, make_verifier, value
from tests.support.verifier_store import Store, entry


def make_hostile(kind: str, path: Path, tmp_path: Path) -> None:
    path.unlink()
    match kind:
        case "symlink":
            (tmp_path / "elsewhere").write_bytes(RIGHT)
            path.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(path)
        case "hard link":
            (tmp_path / "elsewhere").write_bytes(RIGHT)
            path.hardlink_to(tmp_path / "elsewhere")
        case "directory":
            path.mkdir()
        case "socket":
            os.mknod(path, 0o666 | stat.S_IFSOCK)
        case "device":
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # what /dev/zero is


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "directory", "socket", "device"])
def test_whatever_is_not_a_plain_file_is_not_read(
    store: Store, verifier: Verifier, registry: CollectorRegistry, tmp_path: Path, kind: str
) -> None:
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    store.put(DIGEST, RIGHT)
    make_hostile(kind, store.layout.data(DIGEST), tmp_path)
    if kind not in {"symlink", "socket", "directory"}:  # with a journal that fits, so that only the kind is wrong
        store.write_journal(DIGEST, size=len(RIGHT))
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert store.verified_names(DIGEST) == []
    assert value(registry, "r3mes_verifications_total", result="error") == 1
    assert read_rejected(store.layout, DIGEST) == {}


def test_data_of_mode_zero_is_an_error_and_stays(registry: CollectorRegistry) -> None:
    with unprivileged() as home:
        store = Store.make(home / "models", entry(RIGHT))
        store.put(DIGEST, RIGHT)
        store.layout.data(DIGEST).chmod(0)
        assert make_verifier(store, registry).verify(DIGEST) is Outcome.ERROR
        assert store.layout.data(DIGEST).exists()
        assert store.verified_names(DIGEST) == []
    assert value(registry, "r3mes_verifications_total", result="error") == 1


def test_an_incoming_directory_that_is_a_link_is_not_followed(store: Store, verifier: Verifier, tmp_path: Path) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.incoming_dir(DIGEST).rename(tmp_path / "elsewhere")
    store.layout.incoming_dir(DIGEST).symlink_to(tmp_path / "elsewhere")
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert (tmp_path / "elsewhere" / "data").exists()


@pytest.mark.timeout(20)
def test_an_incoming_directory_that_is_a_fifo_is_not_waited_for(store: Store, verifier: Verifier) -> None:
    os.mkfifo(store.layout.incoming_dir(DIGEST))
    assert verifier.verify(DIGEST) is Outcome.ERROR


def test_a_verified_directory_that_is_a_link_is_not_followed(store: Store, verifier: Verifier, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    store.layout.verified_dir(DIGEST).symlink_to(tmp_path / "elsewhere")
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.ERROR
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert store.layout.data(DIGEST).exists()


def test_a_link_under_the_verified_name_is_removed_not_followed(
    store: Store, verifier: Verifier, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(RIGHT)
    store.layout.verified_dir(DIGEST).mkdir()
    store.layout.verified_file(DIGEST, "tiny.gguf").symlink_to(tmp_path / "elsewhere")
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    assert not store.layout.verified_file(DIGEST, "tiny.gguf").is_symlink()
    assert (tmp_path / "elsewhere").exists()
