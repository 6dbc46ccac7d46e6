"""What belongs to no pin any more: bytes in incoming, and links of a host that lead to it."""

import os
import time
from pathlib import Path

import pytest

from services.downloader.host_link import sweep_links
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.unpinned import sweep_unpinned
from shared.store.layout import StoreLayout
from tests.support.verifier_store import Store, entry, sha256_of

PINNED, OLD, OLDER = (sha256_of(name) for name in (b"pinned", b"old", b"older"))
CLAIMED = f".claimed-{'0' * 32}"


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    store = Store.make(tmp_path / "models", entry(PINNED))
    for digest in (PINNED, OLD, OLDER):
        store.put(digest, b"some bytes")
    return store.layout


@pytest.fixture
def keeper() -> LeaseKeeper:
    return LeaseKeeper(Identity.of_this_process())


def left(layout: StoreLayout) -> set[str]:
    return {path.name for path in layout.incoming.iterdir()}


def test_downloads_that_are_not_pinned_make_room(layout: StoreLayout, keeper: LeaseKeeper) -> None:
    layout.control(OLD).write_text("{}")
    (layout.incoming_dir(OLD) / f".journal.json.{'0' * 16}").touch()
    sweep_unpinned(layout, keeper, frozenset({PINNED}))
    assert left(layout) == {PINNED}


def test_data_that_a_killed_verifier_left_claimed_goes_with_them(layout: StoreLayout, keeper: LeaseKeeper) -> None:
    layout.data(OLD).rename(layout.incoming_dir(OLD) / CLAIMED)
    sweep_unpinned(layout, keeper, frozenset({PINNED}))
    assert left(layout) == {PINNED}


def test_one_that_cannot_be_removed_keeps_no_other_from_it(layout: StoreLayout, keeper: LeaseKeeper) -> None:
    first, second = sorted((OLD, OLDER))
    (layout.incoming_dir(first) / "foreign").mkdir()
    sweep_unpinned(layout, keeper, frozenset({PINNED}))
    assert left(layout) == {PINNED, first}
    assert not layout.data(first).exists()
    assert second not in left(layout)


def link(layout: StoreLayout, name: str, target: str) -> Path:
    path = layout.root / name
    path.symlink_to(target)
    return path


def test_links_to_what_is_not_accepted_go_and_no_others(layout: StoreLayout) -> None:
    stays = [
        link(layout, "tiny.gguf", f"verified/{PINNED}/tiny.gguf"),  # leads nowhere now, and will again
        link(layout, "mine.gguf", "/somewhere/else.gguf"),
        link(layout, "strange.gguf", f"verified/{OLD}/deeper/old.gguf"),
        link(layout, f".{'0' * 16}.link", f"verified/{PINNED}/tiny.gguf"),  # of this moment: being made
    ]
    (layout.root / "file.gguf").write_bytes(b"a person's own")
    link(layout, "old.gguf", f"verified/{OLD}/old.gguf")
    temporary = link(layout, f".{'1' * 16}.link", f"verified/{PINNED}/tiny.gguf")
    os.utime(temporary, (time.time() - 3600,) * 2, follow_symlinks=False)
    assert sweep_links(layout, frozenset({PINNED})) == [temporary.name, "old.gguf"]
    assert all(path.is_symlink() for path in stays)
    assert (layout.root / "file.gguf").exists()
