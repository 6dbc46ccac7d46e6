import os
from pathlib import Path

import pytest

from shared.store.records import Receipt, StatIdentity
from shared.store.verified import has_right_receipt, open_verified
from tests.support.verifier_store import Store, entry, sha256_of

CONTENT = b"the model"
DIGEST = sha256_of(CONTENT)
NAME = "tiny.gguf"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.make(tmp_path / "models", entry(CONTENT))
    store.layout.verified_dir(DIGEST).mkdir()
    store.layout.verified_file(DIGEST, NAME).write_bytes(CONTENT)
    write_receipt(store)
    return store


def write_receipt(store: Store, **changes: object) -> None:
    status = store.layout.verified_file(DIGEST, NAME).stat()
    fields = {
        "sha256": DIGEST,
        "size": status.st_size,
        "file_name": NAME,
        "source": None,
        "revision": "",
        "verified_at": 1.0,
        "verifier": "r3mes",
        "genesis_sha256": DIGEST,
        "st": StatIdentity.of(status),
        **changes,
    }
    Receipt.model_validate(fields).write(store.layout.receipt(DIGEST))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_verified_file_comes_open_with_its_receipt(store: Store) -> None:
    before = descriptors()
    with open_verified(store.layout, DIGEST, NAME) as verified:
        assert verified is not None
        assert os.read(verified.descriptor, 100) == CONTENT
        assert verified.receipt is not None
    assert descriptors() == before


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "b" * 64}, {"size": 1}, {"file_name": "other.gguf"}],
    ids=["another digest", "another size", "another name"],
)
def test_a_receipt_that_disagrees_is_none(store: Store, changes: dict[str, object]) -> None:
    write_receipt(store, **changes)
    assert has_right_receipt(store.layout, DIGEST, NAME) is None
    with open_verified(store.layout, DIGEST, NAME) as verified:
        assert verified is not None
        assert verified.receipt is None


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "absent"])
def test_what_is_not_a_regular_file_is_not_there(store: Store, tmp_path: Path, what: str) -> None:
    path = store.layout.verified_file(DIGEST, NAME)
    path.rename(tmp_path / "elsewhere")
    match what:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            pass
    before = descriptors()
    with open_verified(store.layout, DIGEST, NAME) as verified:
        assert verified is None
    assert descriptors() == before


@pytest.mark.parametrize("what", ["directory", "fifo"])
def test_a_receipt_that_is_no_file_is_absent(store: Store, what: str) -> None:
    store.layout.receipt(DIGEST).unlink()
    if what == "directory":
        store.layout.receipt(DIGEST).mkdir()
    else:
        os.mkfifo(store.layout.receipt(DIGEST))
    before = descriptors()
    with open_verified(store.layout, DIGEST, NAME) as verified:
        assert verified is not None
        assert verified.receipt is None
    assert descriptors() == before


def test_a_directory_that_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    store.layout.verified_dir(DIGEST).rename(tmp_path / "elsewhere")
    store.layout.verified_dir(DIGEST).symlink_to(tmp_path / "elsewhere")
    assert has_right_receipt(store.layout, DIGEST, NAME) is None


def test_an_exception_of_the_caller_passes_through(store: Store) -> None:
    def fail() -> None:
        with open_verified(store.layout, "c" * 64, NAME) as verified:
            assert verified is None
            raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        fail()
