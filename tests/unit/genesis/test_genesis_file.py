"""An open genesis file: what was hashed is what is parsed and copied, whatever becomes of the file meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.acceptance.genesis_file import CHUNK, find_genesis, open_genesis
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import MAX_GENESIS_BYTES, MAX_PLAIN_BYTES
from tests.support.geneses import DIGEST, OTHER_DIGEST, chain_entry, chain_form, plain_form

OLD = plain_form()
LARGE = chain_form(chain_entry(), bank={"blob": "QUJD" * CHUNK})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "genesis.json"


@pytest.mark.parametrize("content", [OLD, LARGE], ids=["plain", "chain"])
def test_a_file_is_hashed_parsed_and_read_again_as_often_as_one_likes(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    file = open_genesis(path)

    assert file.sha256 == hashlib.sha256(content).hexdigest()
    for _ in range(2):
        assert b"".join(file.chunks()) == content
        assert file.genesis.models[0].model_name == "Tiny"
    assert file.genesis.sha256 == file.sha256


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "removed"])
def test_what_the_name_leads_to_later_does_not_matter(path: Path, is_replaced: bool) -> None:
    path.write_bytes(LARGE)
    file = open_genesis(path)

    path.unlink()
    if is_replaced:
        path.write_bytes(plain_form(verification_sha256=OTHER_DIGEST))

    assert b"".join(file.chunks()) == LARGE
    assert file.genesis.sha256 == file.sha256


CHANGES = [
    ("another digest pinned", LARGE.replace(DIGEST.encode(), OTHER_DIGEST.encode())),
    ("white space at the end", LARGE + b"\n"),
    ("white space in the middle", LARGE.replace(b": ", b":  ", 1)),
]


@pytest.mark.parametrize("content", [case[1] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_large_file_that_is_changed_in_place_is_neither_parsed_nor_copied(path: Path, content: bytes) -> None:
    path.write_bytes(LARGE)

    file = open_genesis(path)
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="no longer what was checked"):
        _ = file.genesis
    with pytest.raises(ConfigurationError, match="no longer what was checked"):
        list(file.chunks())


@pytest.mark.parametrize("size", [0, len(LARGE) // 2], ids=["emptied", "cut"])
def test_a_large_file_that_is_cut_meanwhile_is_not_copied(path: Path, size: int) -> None:
    path.write_bytes(LARGE)

    file = open_genesis(path)
    os.truncate(path, size)

    with pytest.raises(ConfigurationError, match="no longer what was checked"):
        list(file.chunks())


@pytest.mark.parametrize("content", [b"", plain_form(verification_sha256=OTHER_DIGEST)], ids=["emptied", "rewritten"])
def test_a_plain_form_is_what_it_was_whatever_becomes_of_its_file(path: Path, content: bytes) -> None:
    path.write_bytes(OLD)

    file = open_genesis(path)
    path.write_bytes(content)

    assert b"".join(file.chunks()) == OLD
    assert file.genesis.models[0].sha256 == DIGEST


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_longer_than_a_plain_form_is_not_held(path: Path, more: int) -> None:
    path.write_bytes(OLD + b" " * (MAX_PLAIN_BYTES - len(OLD) + more))

    file = open_genesis(path)
    path.unlink()
    file.close()

    if more:
        with pytest.raises(GenesisError, match="cannot be read"):
            list(file.chunks())
    else:
        assert file.genesis.models[0].sha256 == DIGEST


def test_a_file_that_grows_beyond_the_limit_meanwhile_is_not_read_to_its_end(path: Path) -> None:
    path.write_bytes(LARGE)

    file = open_genesis(path)
    os.truncate(path, 100 * MAX_GENESIS_BYTES)  # a hole: it takes no room

    with pytest.raises(GenesisError, match="more than 268435456 bytes"):
        list(file.chunks())


def test_a_file_beyond_the_limit_is_refused_and_in_trust_absent(path: Path) -> None:
    path.touch()
    os.truncate(path, MAX_GENESIS_BYTES + 1)

    with pytest.raises(GenesisError, match="more than 268435456 bytes"):
        open_genesis(path)
    assert find_genesis(path) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.with_name("real.json"))])
def test_what_is_no_file_of_ours_in_trust_is_absent(path: Path, make: Callable[[Path], None]) -> None:
    path.with_name("real.json").write_bytes(OLD)
    make(path)

    assert find_genesis(path) is None


def test_a_file_is_closed_with_its_last_reference(path: Path) -> None:
    path.write_bytes(LARGE)
    before = sorted(Path("/proc/self/fd").iterdir())

    for _ in range(3):
        assert open_genesis(path).genesis
        assert find_genesis(path)

    assert sorted(Path("/proc/self/fd").iterdir()) == before
