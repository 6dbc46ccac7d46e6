"""The miner's own check: receipt, digest, structure, and that nothing changed meanwhile."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from services.miner.model.check import Rehash, check
from services.miner.model.find import choose
from shared.errors import ConfigurationError, IntegrityError, NotReadyError
from shared.genesis import Genesis, ModelPin
from shared.store.layout import StoreLayout
from shared.store.records import Receipt, StatIdentity
from tests.unit.miner.gguf_bytes import gguf

CONTENT = gguf()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIN = ModelPin("Tiny", "tiny.gguf", "https://example.com/tiny.gguf", DIGEST, 0.1, "", None)
NEVER = threading.Event()


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    layout = StoreLayout(tmp_path)
    layout.verified_dir(DIGEST).mkdir(parents=True)
    return layout


def put(layout: StoreLayout, content: bytes = CONTENT, *, receipt: bool = True) -> Path:
    path = layout.verified_file(DIGEST, PIN.file_name)
    path.write_bytes(content)
    if receipt:
        Receipt(
            sha256=DIGEST,
            size=len(content),
            file_name=PIN.file_name,
            source=None,
            revision="",
            verified_at=time.time(),
            verifier="test",
            genesis_sha256=DIGEST,
            st=StatIdentity.of(path.stat()),
        ).write(layout.receipt(DIGEST))
    return path


def checked(layout: StoreLayout, rehash: Rehash = "changed", pin: ModelPin = PIN) -> bool:
    """Check and tell whether the bytes were read; the descriptor is the file's."""
    model = check(layout, pin, rehash, NEVER)
    try:
        assert os.fstat(model.descriptor).st_ino == layout.verified_file(DIGEST, PIN.file_name).stat().st_ino
        assert os.pread(model.descriptor, 4, 0) == b"GGUF"
        return model.rehashed
    finally:
        model.close()


def test_a_right_receipt_saves_reading_the_bytes(layout: StoreLayout) -> None:
    put(layout)
    assert checked(layout) is False
    assert checked(layout, "always") is True


def test_without_a_receipt_or_with_one_of_another_state_the_bytes_decide(layout: StoreLayout) -> None:
    path = put(layout, receipt=False)
    assert checked(layout) is True
    put(layout)
    path.chmod(0o444)  # changes ctime, and the receipt is no longer of this state
    assert checked(layout) is True


def test_wrong_bytes_are_refused_with_both_digests(layout: StoreLayout) -> None:
    wrong = CONTENT[:-1] + b"x"
    path = put(layout)
    path.write_bytes(wrong)
    with pytest.raises(IntegrityError) as error:
        checked(layout)
    assert DIGEST in error.value.message
    assert hashlib.sha256(wrong).hexdigest() in error.value.message


def test_another_size_than_pinned_is_refused_before_reading(layout: StoreLayout) -> None:
    put(layout)
    pin = ModelPin("Tiny", "tiny.gguf", PIN.download_source, DIGEST, 0.1, "", len(CONTENT) + 1)
    with pytest.raises(IntegrityError, match="bytes, the genesis pins"):
        checked(layout, pin=pin)


@pytest.mark.parametrize("kind", ["nothing", "directory", "link", "fifo"])
def test_what_is_not_a_regular_file_is_not_there(layout: StoreLayout, kind: str) -> None:
    path = layout.verified_file(DIGEST, PIN.file_name)
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        (layout.root / "elsewhere.gguf").write_bytes(CONTENT)
        path.symlink_to(layout.root / "elsewhere.gguf")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(NotReadyError, match="not verified yet"):
        checked(layout)


def test_a_stop_ends_the_hashing(layout: StoreLayout) -> None:
    put(layout, receipt=False)
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotReadyError, match="interrupted"):
        check(layout, PIN, "changed", stop)


def test_no_descriptor_is_left_behind_whatever_the_verdict(layout: StoreLayout) -> None:
    put(layout, CONTENT[:-1], receipt=False)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(IntegrityError):
            checked(layout)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_first_model_is_chosen_unless_one_is_named() -> None:
    other = ModelPin("Other", "other.gguf", PIN.download_source, "0" * 64, 0.1, "", None)
    genesis = Genesis((PIN, other), "1" * 64)
    assert choose(genesis, None) is PIN
    assert choose(genesis, "Other") is other
    with pytest.raises(ConfigurationError, match="R3MES_MODEL") as error:
        choose(genesis, "Third")
    assert "Tiny, Other" in error.value.next_step
