"""Every document beside the bytes may be hostile: what does not fit exactly reads as absent."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.states import Source
from shared.store.records import Control, Journal, Lease, PartialNote, Receipt, Record, RejectedRecord, StatIdentity

DIGEST = "a" * 64
HEX32 = "b" * 32

NOTE = PartialNote(generation=HEX32, durable=1)

JOURNAL = Journal(
    sha256=DIGEST,
    size=100,
    generation=HEX32,
    ino=5,
    instance=HEX32,
    source=Source.HUGGINGFACE,
    url="https://huggingface.co/x",
    revision="main",
    prefix=40,
    ranges=((0, 30), (50, 60)),
    complete=False,
    updated_at=1.5,
)
LEASE = Lease(host="h", boot_id="b", pid_namespace="n", pid=1, instance=HEX32, token=3, renewed_at=1.0)
CONTROL = Control(wish="paused", attempts={Source.IPFS: 2}, forgiven_before=5.0)
REJECTED = RejectedRecord(
    sha256=DIGEST,
    found=None,
    size=1,
    reason="mismatch",
    generation=HEX32,
    source=None,
    revision="",
    genesis_sha256=DIGEST,
    rejected_at=1.0,
)


def receipt_of(path: Path) -> Receipt:
    return Receipt(
        sha256=DIGEST,
        size=path.stat().st_size,
        file_name=path.name,
        source=None,
        revision="",
        verified_at=1.0,
        verifier="r3mes",
        genesis_sha256=DIGEST,
        st=StatIdentity.of(path.stat()),
    )


@pytest.mark.parametrize("record", [JOURNAL, LEASE, CONTROL, REJECTED, NOTE], ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_back(tmp_path: Path, record: Record) -> None:
    record.write(tmp_path / "x.json")
    assert type(record).read(tmp_path / "x.json") == record


def changed(**changes: object) -> bytes:
    document = JOURNAL.model_dump(mode="json")
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value != "absent"}).encode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(changed(extra=1), id="an unknown key"),
        pytest.param(changed(size="absent"), id="a missing key"),
        pytest.param(changed(version=2), id="another version"),
        pytest.param(changed(size="100"), id="a number as text"),
        pytest.param(changed(size=100.0), id="a float for an integer"),
        pytest.param(changed(size=True), id="a boolean for an integer"),
        pytest.param(changed(size=-1), id="a negative size"),
        pytest.param(changed(size=0), id="no size"),
        pytest.param(changed(size=10**30), id="a size beyond 64 bits"),
        pytest.param(changed(prefix=101), id="a prefix beyond the size"),
        pytest.param(changed(ranges=[[0, 101]]), id="a range beyond the size"),
        pytest.param(changed(ranges=[[10, 5]]), id="a range that ends before it begins"),
        pytest.param(changed(ranges=[[0, 0]]), id="an empty range"),
        pytest.param(changed(ranges=[[0, 10], [10, 20]]), id="ranges that touch"),
        pytest.param(changed(ranges=[[20, 30], [0, 10]]), id="ranges out of order"),
        pytest.param(changed(ranges=[[0, 10, 20]]), id="a range of three"),
        pytest.param(changed(size=10**6, ranges=[[2 * n, 2 * n + 1] for n in range(1025)]), id="too many ranges"),
        pytest.param(changed(complete=True), id="complete without all of it"),
        pytest.param(changed(generation="../" + "a" * 29), id="a generation that is a path"),
        pytest.param(changed(generation="A" * 32), id="a generation in upper case"),
        pytest.param(changed(sha256=DIGEST + "\n"), id="a digest with a newline"),
        pytest.param(changed(updated_at=float("nan")), id="a time that is none"),
        pytest.param(changed(source="torrent"), id="an unknown source"),
        pytest.param(changed(url="x" * 5000), id="a very long address"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"version":' * 50_000, id="deeply nested objects"),
    ],
)
def test_a_journal_that_does_not_fit_exactly_is_absent(content: bytes) -> None:
    assert Journal.parse(content) is None


def test_at_most_1024_ranges_are_read() -> None:
    ranges = [[2 * number, 2 * number + 1] for number in range(1024)]
    assert Journal.parse(changed(size=10**6, ranges=ranges)) is not None


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: json.dumps(text).encode()))
def test_no_content_makes_reading_raise(content: bytes) -> None:
    for kind in (Journal, Lease, Control, RejectedRecord, Receipt):
        assert kind.parse(content) is None or kind is Control


def test_a_complete_journal_is_one_durable_range() -> None:
    journal = Journal.parse(changed(complete=True, prefix=100, ranges=[[0, 100]]))
    assert journal is not None
    assert journal.durable_prefix == 100


@pytest.mark.parametrize(("ranges", "durable"), [((), 0), (((0, 30),), 30), (((10, 30),), 0), (((0, 5), (7, 9)), 5)])
def test_the_durable_prefix_is_what_is_covered_from_zero(ranges: tuple[tuple[int, int], ...], durable: int) -> None:
    assert JOURNAL.model_copy(update={"ranges": ranges}).durable_prefix == durable


def test_a_receipt_is_right_for_exactly_one_state_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"content")
    receipt = receipt_of(path)
    assert receipt.is_right(DIGEST, path.stat())
    assert not receipt.is_right("c" * 64, path.stat())
    path.chmod(0o400)
    assert not receipt.is_right(DIGEST, path.stat()), "a change of metadata changes the ctime"
    receipt = receipt_of(path)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"content")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert not receipt.is_right(DIGEST, other.stat())


def test_what_file_systems_say_of_a_file_is_taken_whatever_it_is(tmp_path: Path) -> None:
    """Inodes may use all 64 bits (overlay, network file systems), and times may lie before 1970."""
    path = tmp_path / "old"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, -(10**9)))
    assert StatIdentity.of(path.stat()).mtime_ns == -(10**9)
    assert StatIdentity(dev=2**64 - 1, ino=2**64 - 1, size=0, mtime_ns=0, ctime_ns=0).ino == 2**64 - 1
