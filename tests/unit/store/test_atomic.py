import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.store.atomic import (
    MAX_DOCUMENT_BYTES,
    open_dir,
    read_hostile_bytes,
    read_hostile_json,
    replace_bytes,
    replace_json,
    sweep_temporaries,
)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_document_is_replaced_whole_with_exactly_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    before = os.umask(0o077)
    try:
        replace_bytes(path, b"old", mode=0o664)
        old = path.stat().st_ino
        replace_bytes(path, b"new", mode=0o440)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != old
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_leaves_the_old_document_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    replace_bytes(path, b"old", mode=0o644)

    def fail(_descriptor: int) -> None:
        raise OSError("EIO")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="EIO"):
        replace_bytes(path, b"new", mode=0o644)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_a_document_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (tmp_path / "x.json").symlink_to(tmp_path / "elsewhere")
    replace_bytes(tmp_path / "x.json", b"new", mode=0o644)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"
    assert not (tmp_path / "x.json").is_symlink()


def test_numbers_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace_json(tmp_path / "x.json", {"x": float("nan")}, mode=0o644)


def link_to_a_file(path: Path) -> None:
    (path.parent / "target").write_text("{}")
    path.symlink_to(path.parent / "target")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: path,
    "link": link_to_a_file,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "directory": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
    "too long": lambda path: path.write_bytes(b" " * MAX_DOCUMENT_BYTES + b"{}"),
    "deep": lambda path: path.write_bytes(b"[" * 60_000),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 13_000),
    "list": lambda path: path.write_bytes(b"[1]"),
    "null": lambda path: path.write_bytes(b"null"),
    "half": lambda path: path.write_bytes(b'{"a": 1'),
    "not UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "huge number": lambda path: path.write_bytes(b'{"a": ' + b"1" * 20_000 + b"}"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_document_is_absent_never_raises_and_leaks_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "journal.json"
    HOSTILE[kind](path)
    before = descriptors()
    assert read_hostile_json(path) is None
    with open_dir(tmp_path) as directory:
        assert read_hostile_json("journal.json", dir_fd=directory) is None
    assert descriptors() == before


def test_a_document_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b"{}".ljust(MAX_DOCUMENT_BYTES))
    assert read_hostile_json(path) == {}
    assert read_hostile_bytes(path, limit=MAX_DOCUMENT_BYTES - 1) is None


def test_a_directory_is_not_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match=r"link|director"), open_dir(tmp_path / "link"):
        pass


def test_only_temporaries_are_swept(tmp_path: Path) -> None:
    kept = [tmp_path / "receipt.json", tmp_path / ".hidden", tmp_path / "model.gguf"]
    for path in kept:
        path.write_text(json.dumps({}))
    (tmp_path / ".receipt.json.0123456789abcdef").write_text("half")
    sweep_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
