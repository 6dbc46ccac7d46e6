"""A container's store: what root makes in incoming ends as the downloader's, and the verdict is the stack's."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from launcher.handing_over import hand_over
from services.downloader.transfer.incoming import read_journal
from shared.errors import StoreError
from shared.states import Source
from shared.store.layout import DOWNLOADER_UID, STORE_GID
from tests.support.downloader_process import MIB, Downloader, model, sha256
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.import_child import import_in_child
from tests.support.importing import accept, host, incoming_names, run_import, state_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, as init does: needs root")

LARGE = os.urandom(33 * MIB)
OWNER = (DOWNLOADER_UID, STORE_GID)


def container(folder: Path, *models: bytes | dict[str, object]) -> Downloader:
    """Return a store of a container stack, on which the test does what runs in the container of `init`."""
    on = host(folder, *models)
    on.environ["R3MES_STORE_KIND"] = "container"
    return on


def rights(on: Downloader, digest: str = DIGEST) -> dict[str, tuple[tuple[int, int], int]]:
    """Return owner, group and mode of incoming of a digest, and of all in it."""
    directory = on.layout.incoming_dir(digest)
    found = {}
    for path in (directory, *directory.iterdir()):
        status = path.lstat()
        found[path.name] = ((status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode))
    return found


def of_the_table(digest: str, *names: str) -> dict[str, tuple[tuple[int, int], int]]:
    return {digest: (OWNER, 0o2770), **dict.fromkeys(names, (OWNER, 432))}


def test_a_file_ends_complete_in_incoming_as_the_downloader_s_own_and_unjudged(tmp_path: Path) -> None:
    on = container(tmp_path, DATA)
    file = tmp_path / "mine"
    file.write_bytes(DATA)
    file.chmod(0o600)
    before = state_of(file)

    done = run_import(on, file)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Tiny: complete, to be verified, ~/models/incoming/{DIGEST}/data\n"
    assert "within R3MES_RECONCILE_SECONDS" in done.stderr
    assert "the next start does" in done.stderr
    assert rights(on) == of_the_table(DIGEST, "data", "journal.json")
    journal = read_journal(on.layout, DIGEST)
    assert journal is not None
    assert journal.complete
    assert journal.source is Source.IMPORT
    assert on.layout.data(DIGEST).read_bytes() == DATA
    assert list(on.layout.verified.iterdir()) == [on.layout.partial]
    assert not os.path.lexists(on.layout.root / "tiny.gguf")
    assert state_of(file) == before


def test_after_ctrl_c_what_is_there_is_the_downloader_s_as_well(tmp_path: Path) -> None:
    on = container(tmp_path, LARGE)
    file, digest = tmp_path / "file", sha256(LARGE)
    file.write_bytes(LARGE)
    code = import_in_child(on.environ, on.home, file, before=7, of=frozenset({"pwrite"}), number=signal.SIGINT)
    assert code == 130, (on.home / "import.log").read_text()
    journal = read_journal(on.layout, digest)
    assert journal is not None
    assert not journal.complete
    assert rights(on, digest) == of_the_table(digest, "data", "journal.json")


def test_after_an_error_what_was_made_is_the_downloader_s_as_well(tmp_path: Path) -> None:
    on = container(tmp_path, model(DATA, required_disk_space_gb=900_000.0))
    file = tmp_path / "file"
    file.write_bytes(DATA)
    done = run_import(on, "--json", file)
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["files"][0]["exit_code"] == 5
    assert rights(on) == of_the_table(DIGEST)


def test_what_a_kill_left_to_root_is_handed_over_by_the_same_command(tmp_path: Path) -> None:
    on = container(tmp_path, LARGE)
    file, digest = tmp_path / "file", sha256(LARGE)
    file.write_bytes(LARGE)
    import_in_child(on.environ, on.home, file, before=7, of=frozenset({"pwrite"}))
    # Until then the downloader's group may do all that it has to.
    for (_, group), mode in rights(on, digest).values():
        assert group == STORE_GID
        assert mode & 0o60 == 0o60
    assert import_in_child(on.environ, on.home, file) == 0, (on.home / "import.log").read_text()
    assert rights(on, digest) == of_the_table(digest, "data", "journal.json")


def test_what_a_hostile_downloader_put_there_keeps_its_owner(tmp_path: Path) -> None:
    on = container(tmp_path, DATA)
    accept(on)
    directory = on.layout.incoming_dir(DIGEST)
    directory.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("root's own")
    (directory / "link").symlink_to(outside)
    (directory / "hard").hardlink_to(outside)
    os.mkfifo(directory / "fifo")
    (directory / "deep").mkdir()
    before = outside.stat()
    hand_over(on.layout, DIGEST)
    after = outside.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert rights(on)[DIGEST] == (OWNER, 0o2770)
    assert (directory / "deep").stat().st_uid == 0

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in directory.iterdir():
        path.rmdir() if path.name == "deep" else path.unlink()
    directory.rmdir()
    directory.symlink_to(foreign)
    with pytest.raises(StoreError, match="cannot hand"):
        hand_over(on.layout, DIGEST)
    assert foreign.stat().st_uid == 0
    assert incoming_names(on.layout, DIGEST) == []
