from __future__ import annotations

from pathlib import Path

import pytest

from services.downloader.transfer.incoming import IncomingFile, Origin, read_journal
from shared.errors import StoreError
from shared.states import Source
from shared.store.layout import StoreLayout
from shared.store.records import Journal
from tests.support.geneses import DIGEST, OTHER_DIGEST

SIZE = 10_000
ORIGIN = Origin(Source.HUGGINGFACE, "https://huggingface.co/x", "c0ffee")
ME, LATER = "1" * 32, "2" * 32


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    layout = StoreLayout(tmp_path)
    layout.incoming.mkdir()
    return layout


def begin(layout: StoreLayout) -> IncomingFile:
    return IncomingFile.start(layout, DIGEST, SIZE, ORIGIN, ME)


def resume(layout: StoreLayout, size: int = SIZE, origin: Origin = ORIGIN) -> IncomingFile | None:
    return IncomingFile.resume(layout, DIGEST, size, origin, LATER)


def journal_of(layout: StoreLayout) -> Journal:
    journal = read_journal(layout, DIGEST)
    assert journal is not None
    return journal


def test_a_new_generation_is_preallocated_and_announces_nothing(layout: StoreLayout) -> None:
    file = begin(layout)
    journal = journal_of(layout)
    status = layout.data(DIGEST).stat()
    assert (status.st_size, journal.ino) == (SIZE, status.st_ino)
    assert status.st_blocks * 512 >= SIZE
    assert (journal.ranges, journal.prefix, journal.complete) == ((), 0, False)
    assert (status.st_mode & 0o7777, layout.incoming_dir(DIGEST).stat().st_mode & 0o7777) == (0o660, 0o2770)
    file.close()


def test_what_is_not_synced_is_not_announced(layout: StoreLayout) -> None:
    file = begin(layout)
    file.write_at(0, b"a" * 100)
    assert journal_of(layout).ranges == ()
    file.sync()
    assert (journal_of(layout).ranges, journal_of(layout).prefix) == (((0, 100),), 100)
    file.close()


def test_a_resume_keeps_exactly_what_the_journal_says(layout: StoreLayout) -> None:
    file = begin(layout)
    file.write_at(0, b"a" * 100)
    file.sync()
    file.write_at(100, b"b" * 100)  # a SIGKILL comes here
    file.close()
    again = resume(layout)
    assert again is not None
    assert again.written == ((0, 100),)
    assert again.generation == file.generation
    again.close()


@pytest.mark.parametrize(
    ("size", "origin"),
    [
        pytest.param(SIZE + 1, ORIGIN, id="another size"),
        pytest.param(SIZE, Origin(Source.IPFS, ORIGIN.url, ORIGIN.revision), id="another source"),
        pytest.param(SIZE, Origin(Source.HUGGINGFACE, ORIGIN.url, "beef"), id="another revision"),
    ],
)
def test_bytes_of_another_identity_are_not_resumed(layout: StoreLayout, size: int, origin: Origin) -> None:
    begin(layout).close()
    assert resume(layout, size, origin) is None


def test_another_address_of_the_same_revision_is_resumed(layout: StoreLayout) -> None:
    begin(layout).close()
    again = resume(layout, origin=Origin(ORIGIN.source, "https://mirror.example/x", ORIGIN.revision))
    assert again is not None
    again.close()


def test_a_journal_is_void_without_its_data_or_with_another_inode(layout: StoreLayout) -> None:
    begin(layout).close()
    layout.data(DIGEST).rename(layout.incoming / "elsewhere")
    assert read_journal(layout, DIGEST) is None
    layout.data(DIGEST).write_bytes(bytes(SIZE))
    assert read_journal(layout, DIGEST) is None
    assert resume(layout) is None


def test_a_journal_of_another_digest_is_void(layout: StoreLayout) -> None:
    begin(layout).close()
    layout.incoming_dir(DIGEST).rename(layout.incoming_dir(OTHER_DIGEST))
    assert read_journal(layout, OTHER_DIGEST) is None


def test_data_behind_a_symbolic_link_is_not_ours(layout: StoreLayout, tmp_path: Path) -> None:
    begin(layout).close()
    target = tmp_path / "target"
    layout.data(DIGEST).rename(target)
    layout.data(DIGEST).symlink_to(target)
    assert resume(layout) is None


def test_a_new_start_is_a_new_inode_and_a_new_generation(layout: StoreLayout) -> None:
    first = begin(layout)
    first.write_at(0, b"a" * 100)
    first.sync()
    before = journal_of(layout)
    second = begin(layout)
    after = journal_of(layout)
    assert before.generation != after.generation
    assert after.ranges == ()
    first.write_at(0, b"x" * 100)  # who still holds the old descriptor reaches nothing
    assert layout.data(DIGEST).read_bytes() == bytes(SIZE)
    first.close()
    second.close()


def test_nothing_is_written_beyond_the_size(layout: StoreLayout) -> None:
    file = begin(layout)
    with pytest.raises(StoreError):
        file.write_at(SIZE - 1, b"ab")
    assert layout.data(DIGEST).stat().st_size == SIZE
    file.close()


def test_complete_means_one_durable_range(layout: StoreLayout) -> None:
    file = begin(layout)
    file.write_at(0, b"a" * (SIZE - 1))
    with pytest.raises(ValueError, match="complete"):
        file.complete()
    assert not journal_of(layout).complete
    file.write_at(SIZE - 1, b"a")
    file.complete()
    assert (journal_of(layout).complete, journal_of(layout).ranges) == (True, ((0, SIZE),))
    file.close()
