"""`r3mes gc`: what no genesis pins is shown, asked about and removed; what one pins is never touched."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import pexpect
import pytest

from launcher.collecting import Garbage, Kind, find_garbage, remove
from shared.acceptance.trust_state import trust_lock
from shared.acceptance.unpinned import read_pinned
from shared.store.layout import DOWNLOADER_UID, STORE_GID
from shared.store.records import Lease, UnpinnedNote
from tests.support.downloader_process import Downloader, model, promote, sha256
from tests.support.downloader_stand import DATA, DIGEST
from tests.support.geneses import list_form
from tests.support.genesis_host import snapshot
from tests.support.importing import R3MES, accept, host, run_r3mes
from tests.support.verifier_store import Store

pytestmark = pytest.mark.slow

OLD = os.urandom(100_000)
OLD_DIGEST = sha256(OLD)


@pytest.fixture
def on(tmp_path: Path) -> Downloader:
    """A host with a pinned model, and an old one of which there is everything that a store may hold."""
    on = host(tmp_path, DATA)
    accept(on)
    fill(on)
    return on


def fill(on: Downloader) -> None:
    layout = on.layout
    for digest, name, data in ((DIGEST, "tiny.gguf", DATA), (OLD_DIGEST, "old.gguf", OLD)):
        promote(layout, digest, name, data)
        (layout.root / name).symlink_to(Path("verified") / digest / name)
        (layout.rejected / f"{digest}-1.json").write_text("{}")
        (layout.rejected / f"{digest}-2.json").write_text("{}")
        Store(layout).put(digest, data[:5000])
        layout.control(digest).write_text("{}")
    note = UnpinnedNote(
        sha256=OLD_DIGEST, absent_seconds=200_000.0, counted_at=time.time(), accepted_at=accepted_at(on)
    )
    note.write(layout.unpinned_note(OLD_DIGEST))


def accepted_at(on: Downloader) -> float:
    return float(json.loads(on.layout.accepted.read_text())["accepted_at"])


def names(on: Downloader, digest: str) -> list[str]:
    """Return all that bears the digest in its path, or leads there."""
    root = on.layout.root
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if digest in str(path) or (path.is_symlink() and digest in str(path.readlink()))
    )


def test_a_dry_run_shows_what_would_go_and_changes_nothing(on: Downloader) -> None:
    before = snapshot(on.layout.root)
    done = run_r3mes(on, "gc", "--dry-run")
    assert done.returncode == 0, done.stderr
    model_, download, records = done.stdout.splitlines()
    assert model_.startswith(f"model     sha256 {OLD_DIGEST}, old.gguf, ")
    assert model_.endswith(", not pinned for 2 days")
    assert download.startswith(f"download  sha256 {OLD_DIGEST}, ")
    assert records.startswith(f"records   sha256 {OLD_DIGEST}, 2 of them, ")
    assert "would free " in done.stderr
    assert DIGEST not in done.stdout
    assert snapshot(on.layout.root) == before
    assert run_r3mes(on, "gc", "--dry-run", "--json").returncode == 0
    assert snapshot(on.layout.root) == before


def test_it_removes_all_of_the_old_model_and_nothing_of_the_pinned_one(on: Downloader) -> None:
    kept = names(on, DIGEST)
    foreign = on.layout.root / "mine.gguf"
    foreign.symlink_to("elsewhere")
    done = run_r3mes(on, "gc", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(item["kind"], item["sha256"], item["result"]) for item in report["items"]] == [
        ("verified", OLD_DIGEST, "removed"),
        ("incoming", OLD_DIGEST, "removed"),
        ("rejected", OLD_DIGEST, "removed"),
    ]
    assert report["bytes"] == sum(item["bytes"] for item in report["items"]) >= len(OLD)
    assert names(on, OLD_DIGEST) == []
    assert names(on, DIGEST) == kept
    assert foreign.is_symlink()
    again = run_r3mes(on, "gc", "--yes")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to remove" in again.stderr


def test_what_is_staged_stays(on: Downloader) -> None:
    staged = list_form(model(OLD, model_name="Old", file_name="old.gguf"))
    on.layout.next_genesis.write_bytes(staged)
    before = names(on, OLD_DIGEST)
    done = run_r3mes(on, "gc", "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert names(on, OLD_DIGEST) == before
    on.layout.next_genesis.write_bytes(b"{")
    done = run_r3mes(on, "gc", "--yes")
    assert done.returncode == 78
    assert "nobody knows what it pins" in done.stderr
    assert names(on, OLD_DIGEST) == before


@pytest.mark.parametrize("change", ["accepted", "staged"])
def test_what_is_pinned_between_the_decision_and_the_deletion_stays(on: Downloader, change: str) -> None:
    found = find_garbage(on.layout, read_pinned(on.layout))
    assert {garbage.kind for garbage in found} == set(Kind)
    before = names(on, OLD_DIGEST)
    raw = list_form(model(DATA), model(OLD, model_name="Old", file_name="old.gguf"))
    if change == "staged":
        on.layout.next_genesis.write_bytes(raw)
    else:
        Store(on.layout).accept(*json.loads(raw)["models"])
    for garbage in found:
        assert remove(on.layout, "host", garbage).kept == "it is pinned by now"
    assert names(on, OLD_DIGEST) == before


def test_an_acceptance_under_way_is_waited_for(on: Downloader) -> None:
    garbage = next(iter(find_garbage(on.layout, read_pinned(on.layout))))
    kept: list[str] = []
    thread = threading.Thread(target=lambda: kept.append(remove(on.layout, "host", garbage).kept))
    with trust_lock(on.layout):
        thread.start()
        Store(on.layout).accept(model(DATA), model(OLD, model_name="Old", file_name="old.gguf"))
    thread.join(10)
    assert kept == ["it is pinned by now"]


def test_a_download_that_somebody_may_be_writing_is_left(on: Downloader) -> None:
    Lease(
        host="another host", boot_id="x", pid_namespace="x", pid=1, instance="0" * 32, token=1, renewed_at=time.time()
    ).write(on.layout.lease(OLD_DIGEST))
    done = run_r3mes(on, "gc", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"kept download  sha256 {OLD_DIGEST}" in done.stderr
    assert on.layout.data(OLD_DIGEST).exists()
    assert not on.layout.verified_dir(OLD_DIGEST).exists()


def test_without_a_terminal_it_needs_yes(on: Downloader) -> None:
    before = snapshot(on.layout.root)
    done = run_r3mes(on, "gc")
    assert done.returncode == 2
    assert OLD_DIGEST in done.stdout
    assert "--yes" in done.stderr
    assert snapshot(on.layout.root) == before


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(on: Downloader, answer: str, code: int) -> None:
    terminal = pexpect.spawn(
        sys.executable, [*R3MES[1:], "gc"], env=on.environ, cwd=str(on.home), encoding="utf-8", timeout=60
    )
    try:
        terminal.expect("Remove this and free .*kB")
        terminal.sendline(answer)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == code
    finally:
        terminal.close(force=True)
    assert (names(on, OLD_DIGEST) == []) is (code == 0)


def test_a_store_that_has_accepted_nothing_loses_nothing(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    accept(on)
    fill(on)
    on.layout.accepted.unlink()
    before = snapshot(on.layout.root)
    done = run_r3mes(on, "gc", "--yes")
    assert done.returncode == 78
    assert "genesis accept" in done.stderr
    assert snapshot(on.layout.root) == before
    assert run_r3mes(on, "gc", "--yes", R3MES_STORE_KIND="container").returncode == 78


def test_one_that_cannot_be_removed_is_named_and_harms_no_other(on: Downloader) -> None:
    foreign = on.layout.incoming_dir(OLD_DIGEST) / "somebody's own"
    foreign.mkdir()
    done = run_r3mes(on, "gc", "--yes")
    assert done.returncode == 1
    assert f"kept download  sha256 {OLD_DIGEST}" in done.stderr
    assert "not empty" in done.stderr
    assert not on.layout.verified_dir(OLD_DIGEST).exists()
    assert not any(on.layout.rejected.glob(f"{OLD_DIGEST}-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, as init does: needs root")
def test_in_a_container_s_store_what_has_to_stay_is_the_downloader_s(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    on.environ["R3MES_STORE_KIND"] = "container"
    accept(on)
    fill(on)
    (on.layout.incoming_dir(OLD_DIGEST) / "somebody's own").mkdir()
    garbage = Garbage(Kind.INCOMING, OLD_DIGEST, 1, 1)
    assert remove(on.layout, "container", garbage).has_failed
    status = on.layout.incoming_dir(OLD_DIGEST).stat()
    assert (status.st_uid, status.st_gid) == (DOWNLOADER_UID, STORE_GID)
    (on.layout.incoming_dir(OLD_DIGEST) / "somebody's own").rmdir()
    assert run_r3mes(on, "gc", "--yes").returncode == 0
    assert [name for name in names(on, OLD_DIGEST) if not name.endswith(".gguf")] == []
