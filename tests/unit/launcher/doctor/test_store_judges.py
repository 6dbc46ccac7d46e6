"""What is said of the store: room, file system, rights, models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.doctor.judges.store import (
    Directory,
    FileSystem,
    Held,
    KeptFile,
    Room,
    judge_file_system,
    judge_files,
    judge_model,
    judge_rights,
    judge_room,
)
from launcher.doctor.verdict import Status
from shared.genesis import ModelPin
from shared.store.layout import DIRECTORIES

GB = 10**9
PIN = ModelPin("Tiny", "tiny.gguf", "https://hf.co/x", "a" * 64, 5.0, "", 4 * GB)


@pytest.mark.parametrize(
    ("usable", "models", "expected"),
    [
        (20 * GB, ("Tiny",), (Status.OK, 0)),
        (9 * GB, ("Tiny",), (Status.OK, 0)),
        (9 * GB - 1, ("Tiny",), (Status.WARNING, 0)),
        (5 * GB, ("Tiny",), (Status.WARNING, 0)),
        (5 * GB - 1, ("Tiny",), (Status.FAILED, 5)),
        (0, (), (Status.OK, 0)),
    ],
)
def test_room_for_two_or_one_or_none(usable: int, models: tuple[str, ...], expected: tuple[Status, int]) -> None:
    verdict = judge_room(Room(usable, 9 * GB, 5 * GB, models))
    assert (verdict.status, verdict.exit_code) == expected
    if verdict.status is Status.FAILED:
        assert verdict.details["missing_bytes"] == 1


DISK = FileSystem("/store", "ext4", is_read_only=False, unnamed_files=True, clones=False)


@pytest.mark.parametrize(
    ("found", "expected", "code"),
    [
        (DISK, Status.OK, 0),
        (replace(DISK, kind="xfs", clones=True), Status.OK, 0),
        (replace(DISK, unnamed_files=False), Status.OK, 0),
        (replace(DISK, unnamed_files=None, clones=None), Status.OK, 0),
        (replace(DISK, is_read_only=True), Status.FAILED, 78),
        (replace(DISK, kind="nfs4"), Status.WARNING, 0),
        (replace(DISK, kind="fuse.sshfs"), Status.WARNING, 0),
        (replace(DISK, kind="tmpfs"), Status.WARNING, 0),
    ],
)
def test_file_systems(found: FileSystem, expected: Status, code: int) -> None:
    verdict = judge_file_system(found)
    assert (verdict.status, verdict.exit_code) == (expected, code)


def directories(**changes: object) -> list[Directory]:
    return [
        replace(Directory(wanted, (wanted.uid, wanted.gid, wanted.mode)), **changes)  # type: ignore[arg-type]
        for wanted in DIRECTORIES
    ]


def statuses(found: list[Directory], *, container: bool, user: int = 0, in_use: bool = True) -> list[Status]:
    return [each.status for each in judge_rights(found, is_container=container, user=user, in_use=in_use)]


def test_in_a_container_owner_and_mode_are_those_of_the_table() -> None:
    assert statuses(directories(), container=True) == [Status.OK]
    wrong = [*directories()[1:], replace(directories()[0], status=(0, 0, 0o777))]
    assert statuses(wrong, container=True) == [Status.FAILED]
    (verdict,) = judge_rights(wrong, is_container=True, user=0, in_use=True)
    assert verdict.exit_code == 78
    assert "0:0 0777, wanted 0:0 0755" in verdict.summary


def test_on_a_host_the_directories_are_this_user_s() -> None:
    mine = [replace(each, status=(1000, 1000, each.wanted.mode)) for each in directories()]
    assert statuses(mine, container=False, user=1000) == [Status.OK]
    assert statuses(mine, container=False, user=1001) == [Status.WARNING] * len(mine)
    barred = [replace(each, is_writable=False) for each in mine]
    assert statuses(barred, container=False, user=1001) == [Status.FAILED] * len(mine)
    open_to_all = [replace(each, status=(1000, 1000, 0o777)) for each in mine]
    assert statuses(open_to_all, container=False, user=1000) == [Status.WARNING] * len(mine)


def test_a_store_that_is_not_there_is_no_fault_and_a_missing_part_of_one_is() -> None:
    nothing = directories(status=None)
    assert statuses(nothing, container=False, in_use=False) == [Status.SKIPPED]
    assert statuses(nothing, container=False, in_use=True) == [Status.WARNING] * len(nothing)


@pytest.mark.parametrize(
    ("file", "count"),
    [
        (KeptFile("trust/genesis.json", 0, 0o644, 0, 0o644), 0),
        (KeptFile("trust/genesis.json", 1000, 0o644, None, 0o644), 0),
        (KeptFile("trust/genesis.json", 1001, 0o644, None, 0o644), 1),
        (KeptFile("trust/genesis.json", 0, 0o666, 0, 0o644), 1),
        (KeptFile("verified/a/b.gguf", 0, 0o444, 10002, 0o444), 1),
    ],
)
def test_what_nobody_may_change_belongs_to_who_wrote_it(file: KeptFile, count: int) -> None:
    verdicts = judge_files([file], user=1000)
    assert [each.status for each in verdicts] == [Status.WARNING] * count


HELD = Held(PIN, 4 * GB, has_receipt=True)


@pytest.mark.parametrize(
    ("held", "expected", "code"),
    [
        (HELD, Status.OK, 0),
        (replace(HELD, digest=PIN.sha256), Status.OK, 0),
        (replace(HELD, digest="b" * 64), Status.FAILED, 3),
        (replace(HELD, digest="b" * 64, has_receipt=False), Status.FAILED, 3),
        (replace(HELD, has_receipt=False), Status.WARNING, 0),
        (replace(HELD, mode=0o644), Status.WARNING, 0),
        (Held(PIN, None), Status.OK, 0),
        (Held(PIN, None, incoming=100), Status.OK, 0),
        (Held(PIN, None, rejected=2), Status.WARNING, 0),
    ],
)
def test_models(held: Held, expected: Status, code: int) -> None:
    verdict = judge_model(held)
    assert (verdict.status, verdict.exit_code, verdict.about) == (expected, code, "Tiny")
