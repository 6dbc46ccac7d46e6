"""`genesis add` and `migrate`, killed at every step or run at once: the file is the old or the new one, never less."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from launcher.genesis_entry import add_entry, migrate_legacy, read_legacy
from launcher.hashing import HashedFile, hash_file
from shared.genesis import parse_genesis
from tests.support.geneses import other_entry, plain_form
from tests.support.killing import killed_at_each_step

pytestmark = pytest.mark.slow

URL = "https://huggingface.co/org/tiny/resolve/main/tiny.gguf"
CID = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"
OLD = plain_form()
AT_ONCE, TURNS = 4, 5


def model(folder: Path, name: str) -> HashedFile:
    path = folder / f"{name}.gguf"
    path.write_bytes(b"GGUF" + name.encode())
    return hash_file(path, lambda _done, _size: None)


def names(path: Path) -> list[str]:
    return [pin.model_name for pin in parse_genesis(path.read_bytes(), file=str(path)).models]


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def add(path: Path, hashed: HashedFile, name: str) -> None:
    add_entry(path, hashed, name=name, url=f"{URL}?{name}", cid="")


def and_one_step_more(action: Callable[[], object]) -> Callable[[], None]:
    """Return the action with a step behind it, so that a death comes after the last write, too."""

    def both() -> None:
        action()
        os.close(os.open(os.devnull, os.O_RDONLY))

    return both


@pytest.mark.parametrize("old", [OLD, None], ids=["to a genesis", "to none"])
def test_an_add_killed_anywhere_leaves_the_old_genesis_or_the_new_one(tmp_path: Path, old: bytes | None) -> None:
    folder = tmp_path / "genesis"
    folder.mkdir()
    path = folder / "genesis.json"
    one, two = model(tmp_path, "one"), model(tmp_path, "two")
    seen = set()

    def prepare() -> None:
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_bytes(old)

    for _ in killed_at_each_step(and_one_step_more(lambda: add(path, one, "One")), prepare):
        before = path.read_bytes() if path.exists() else None
        assert before == old or names(path)[-1] == "One"
        seen |= {"old" if before == old else "new", *(["left behind"] if left_behind(folder) else [])}
        add(path, two, "Two")
        assert names(path)[-1] == "Two"
        assert left_behind(folder) == []

    assert seen == {"old", "new", "left behind"}


@pytest.mark.parametrize("is_there", [True, False], ids=["over one that is there", "to a new file"])
def test_a_migration_killed_anywhere_keeps_the_old_genesis_and_writes_a_whole_new_one_or_none(
    tmp_path: Path, is_there: bool
) -> None:
    folder = tmp_path / "genesis"
    folder.mkdir()
    old, path = folder / "old.json", folder / "genesis.json"
    old.write_text(json.dumps({"model_ipfs": CID}))
    hashed = model(tmp_path, "one")
    seen = set()

    def migrate() -> None:
        migrate_legacy(read_legacy(old), path, hashed, name="One", url=URL, overwrite=is_there)

    def prepare() -> None:
        path.unlink(missing_ok=True)
        if is_there:
            path.write_bytes(OLD)

    for _ in killed_at_each_step(and_one_step_more(migrate), prepare):
        assert json.loads(old.read_bytes()) == {"model_ipfs": CID}
        seen |= {*(names(path) if path.exists() else ["none"]), *(["left behind"] if left_behind(folder) else [])}
        prepare()
        migrate()
        assert names(path) == ["One"]
        assert left_behind(folder) == []

    assert seen == {"One", "Tiny" if is_there else "none", "left behind"}


def _add(path: Path, models: list[HashedFile], barrier: Barrier) -> None:
    for each in models:
        barrier.wait(30)
        add(path, each, each.name)


def test_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(json.dumps({"models": [other_entry()]}).encode())
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(AT_ONCE)
    models = [[model(tmp_path, f"m{who}-{turn}") for turn in range(TURNS)] for who in range(AT_ONCE)]
    processes = [context.Process(target=_add, args=(path, each, barrier)) for each in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * AT_ONCE
    assert sorted(names(path)) == sorted(["Other", *(each.name for turns in models for each in turns)])
    assert left_behind(tmp_path) == []
