"""What any crash leaves in a directory that the verifier writes is gone after the next start, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.orphans import sweep_orphans
from services.verifier.retention import Retention
from services.verifier.verification import Outcome, Verifier
from shared.store.layout import StoreLayout
from shared.store.records import PartialNote, UnpinnedNote
from tests.support.verifier_stand import DIGEST, RIGHT, value
from tests.support.verifier_store import Store, sha256_of

UNPINNED = sha256_of(b"no genesis pins this")
HEX = "0123456789abcdef"
GENERATION = "0" * 32


def partial_note(layout: StoreLayout, digest: str) -> None:
    PartialNote(generation=GENERATION, durable=3).write(layout.partial_note(digest))


def unpinned_note(layout: StoreLayout, digest: str) -> None:
    layout.verified_dir(digest).mkdir(exist_ok=True)
    note = UnpinnedNote(sha256=digest, absent_seconds=1.0, counted_at=1.0, accepted_at=1.0)
    note.write(layout.unpinned_note(digest))


def written(where: Callable[[StoreLayout], Path]) -> Callable[[StoreLayout], object]:
    def write(layout: StoreLayout) -> None:
        path = where(layout)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left")

    return write


LEFT: dict[str, Callable[[StoreLayout], object]] = {
    "a record's temporary": written(lambda at: at.rejected / f".{DIGEST}-1.json.{HEX}"),
    "a partial note's temporary": written(lambda at: at.partial / f".{DIGEST}.json.{HEX}"),
    "a receipt's temporary": written(lambda at: at.verified_dir(DIGEST) / f".receipt.json.{HEX}"),
    "a receipt's temporary, not pinned": written(lambda at: at.verified_dir(UNPINNED) / f".receipt.json.{HEX}"),
    "an unpinned note's temporary": written(lambda at: at.verified_dir(UNPINNED) / f".unpinned.json.{HEX}"),
    "a named copy": written(lambda at: at.partial / f"{DIGEST}.{HEX}"),
    "a named copy, not pinned": written(lambda at: at.partial / f"{UNPINNED}.{HEX}"),
    "a partial alone": written(lambda at: at.partial_file(DIGEST)),
    "a partial's note alone": lambda at: partial_note(at, UNPINNED),
    "a directory": lambda at: at.verified_dir(DIGEST).mkdir(),
    "a receipt without its file": written(lambda at: at.receipt(DIGEST)),
    "a receipt without its file, not pinned": written(lambda at: at.receipt(UNPINNED)),
    "an unpinned note without its file": lambda at: unpinned_note(at, UNPINNED),
}


def names(layout: StoreLayout) -> list[str]:
    tops = (layout.rejected, layout.verified)
    return sorted(str(path.relative_to(layout.root)) for top in tops for path in top.rglob("*"))


@pytest.mark.parametrize("what", LEFT)
def test_a_start_sweeps(store: Store, verifier: Verifier, what: str) -> None:
    before = names(store.layout)
    LEFT[what](store.layout)
    assert names(store.layout) != before
    sweep_orphans(verifier)
    assert names(store.layout) == before


def test_a_start_leaves_what_is_whole_and_what_is_not_ours(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    store.put(DIGEST, RIGHT)
    assert verifier.verify(DIGEST) is Outcome.PROMOTED
    unpinned_note(store.layout, DIGEST)
    written(lambda at: at.verified_dir(UNPINNED) / "model.gguf")(store.layout)
    unpinned_note(store.layout, UNPINNED)
    written(lambda at: at.verified_dir("f" * 64) / "somebody's own")(store.layout)
    written(lambda at: at.rejected_file(DIGEST, 1))(store.layout)
    written(lambda at: at.data(UNPINNED))(store.layout)
    written(lambda at: at.partial_file(UNPINNED))(store.layout)
    before = names(store.layout)
    sweep_orphans(verifier)
    assert names(store.layout) == before
    assert value(registry, "r3mes_deletions_total", reason="orphan") == 0


@pytest.mark.parametrize("digest", [DIGEST, UNPINNED], ids=["pinned", "not pinned"])
def test_what_was_claimed_lies_under_its_own_name_again(store: Store, verifier: Verifier, digest: str) -> None:
    claimed = store.layout.incoming_dir(digest) / f".claimed-{GENERATION}"
    claimed.parent.mkdir()
    claimed.write_bytes(RIGHT)
    sweep_orphans(verifier)
    assert [path.name for path in claimed.parent.iterdir()] == ["data"]


def test_a_partial_that_nobody_will_resume_goes_without_a_restart(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    retention = Retention(verifier, None)
    for digest in (DIGEST, UNPINNED):
        written(lambda at, digest=digest: at.partial_file(digest))(store.layout)
        partial_note(store.layout, digest)
    written(lambda at: at.data(UNPINNED))(store.layout)
    retention.look()
    assert store.layout.partial_file(UNPINNED).exists()  # the downloader has its half yet
    store.layout.data(UNPINNED).unlink()
    retention.look()
    assert not store.layout.partial_file(UNPINNED).exists()
    assert not store.layout.partial_note(UNPINNED).exists()
    assert store.layout.partial_file(DIGEST).exists()  # pinned: a job's or a start's
    assert value(registry, "r3mes_deletions_total", reason="orphan") == 1
