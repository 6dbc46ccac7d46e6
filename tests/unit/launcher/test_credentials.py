"""Credentials: made once, one owner a file, right again after a crash anywhere, and untouched when they are right."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from launcher.credentials import ACL_FILE, OWNERS, URL_FILE, Credentials, prepare_credentials, read_password
from shared.redis_rights import SERVICES, acl_file
from tests.support.killing import killed_at_each_step

# As root the owners are those of the stack, else everything is ours.
IS_ROOT = os.geteuid() == 0
ME = (os.geteuid(), os.getegid())
OWNED = OWNERS if IS_ROOT else dict.fromkeys(OWNERS, ME)
ROOT = (0, 0) if IS_ROOT else ME
FILES = {"downloader": URL_FILE, "verifier": URL_FILE, "redis": ACL_FILE}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.mkdir()
    return path


def prepare(volume: Path, *, node: str = "local", given: bool = False) -> Credentials:
    outcome = prepare_credentials(volume, node, given=given, owners=OWNED, root_owner=ROOT)
    assert outcome is not None
    return outcome


def passwords(volume: Path) -> dict[str, str]:
    found = {service: read_password(volume / service) for service in SERVICES}
    return {service: password for service, password in found.items() if password is not None}


def state(volume: Path) -> dict[str, tuple[int, ...]]:
    """What would change if anything were written: inode, owner, mode, change time."""
    return {
        str(path.relative_to(volume)): (s.st_ino, s.st_uid, s.st_gid, s.st_mode, s.st_ctime_ns)
        for path in (volume, *volume.rglob("*"))
        for s in (path.lstat(),)
    }


def assert_right(volume: Path, *, node: str = "local") -> None:
    """Every file is there with its owner and mode, the ACL follows from the addresses, nothing else lies about."""
    assert set(passwords(volume)) == set(SERVICES)
    assert (volume / "redis" / ACL_FILE).read_text() == acl_file(node, passwords(volume))
    assert {str(path.relative_to(volume)) for path in volume.rglob("*")} == {
        *FILES,
        *(f"{name}/{file}" for name, file in FILES.items()),
    }
    for name, file in FILES.items():
        directory, found = (volume / name).lstat(), (volume / name / file).lstat()
        assert (directory.st_uid, directory.st_gid, stat.S_IMODE(directory.st_mode)) == (*ROOT, 0o755)
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*OWNED[name], 0o400)


def test_the_first_run_makes_a_password_a_service_and_the_rights(volume: Path) -> None:
    outcome = prepare(volume)
    assert outcome.made == SERVICES
    assert_right(volume)
    assert len(set(passwords(volume).values())) == 2
    url = (volume / "downloader" / URL_FILE).read_text()
    assert re.fullmatch(r"redis://downloader:[\w-]{43}@redis:6379/0\n", url)


def test_the_rights_hold_no_password_and_no_password_is_told(volume: Path) -> None:
    told = str(prepare(volume))
    rights = (volume / "redis" / ACL_FILE).read_text()
    assert rights.startswith("user default off ")
    for password in passwords(volume).values():
        assert password not in rights
        assert password not in told


def test_a_second_run_writes_nothing(volume: Path) -> None:
    prepare(volume)
    before = state(volume)
    outcome = prepare(volume)
    assert (outcome.made, outcome.rights_changed) == ((), False)
    assert state(volume) == before


def test_another_node_changes_the_rights_and_no_password(volume: Path) -> None:
    prepare(volume)
    before = passwords(volume)
    assert prepare(volume, node="berlin-1").rights_changed
    assert passwords(volume) == before
    assert_right(volume, node="berlin-1")


def test_with_a_redis_of_the_operator_s_nobody_gets_a_password(volume: Path) -> None:
    outcome = prepare(volume, given=True)
    assert outcome.made == ()
    assert passwords(volume) == {}
    assert (volume / "redis" / ACL_FILE).read_text() == acl_file("local", {})
    assert {path.name for path in volume.iterdir()} == set(FILES), "mounts need their directories"
    prepare(volume)
    assert_right(volume)


def test_with_a_redis_of_the_operator_s_earlier_passwords_stay(volume: Path) -> None:
    prepare(volume)
    before = state(volume)
    prepare(volume, given=True)
    assert state(volume) == before


def test_where_the_volume_is_not_mounted_nothing_is_made(tmp_path: Path) -> None:
    assert prepare_credentials(tmp_path / "absent", "local", given=False) is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "broken",
    [b"", b"redis://downloader:", b"redis://verifier:" + b"x" * 43 + b"@redis:6379/0\n", b"\xff" * 60, b"x" * 70_000],
    ids=["empty", "half", "another's", "no text", "too long"],
)
def test_a_broken_address_gets_a_new_password_and_the_others_keep_theirs(volume: Path, broken: bytes) -> None:
    prepare(volume)
    before = passwords(volume)
    path = volume / "downloader" / URL_FILE
    path.chmod(0o600)
    path.write_bytes(broken)
    outcome = prepare(volume)
    assert outcome.made == ("downloader",)
    assert_right(volume)
    assert passwords(volume)["verifier"] == before["verifier"]
    assert passwords(volume)["downloader"] != before["downloader"]


def test_a_link_or_a_pipe_in_a_file_s_place_is_replaced_and_not_followed(volume: Path, tmp_path: Path) -> None:
    prepare(volume)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    for name, file in (("downloader", URL_FILE), ("redis", ACL_FILE)):
        (volume / name / file).unlink()
        (volume / name / file).symlink_to(elsewhere)
    (volume / "verifier" / URL_FILE).unlink()
    os.mkfifo(volume / "verifier" / URL_FILE)
    prepare(volume)
    assert_right(volume)
    assert elsewhere.read_text() == "mine"


def test_changed_rights_are_put_back(volume: Path) -> None:
    prepare(volume)
    path = volume / "redis" / ACL_FILE
    path.chmod(0o600)
    path.write_text("user default on nopass ~* &* +@all\n")
    assert prepare(volume).rights_changed
    assert_right(volume)


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file to another user")
def test_a_wrong_owner_or_mode_is_put_right_in_place(volume: Path) -> None:
    prepare(volume)
    before = state(volume)
    for name, file in FILES.items():
        os.chown(volume / name / file, 1, 1)
        (volume / name / file).chmod(0o644)
        os.chown(volume / name, 1, 1)
        (volume / name).chmod(0o777)
    outcome = prepare(volume)
    assert (outcome.made, outcome.rights_changed) == ((), False)
    assert_right(volume)
    assert {path: ino for path, (ino, *_) in state(volume).items()} == {p: ino for p, (ino, *_) in before.items()}


@pytest.mark.slow
@pytest.mark.parametrize("found", ["nothing", "a broken address", "others' rights"])
def test_killed_at_any_step_the_next_run_ends_it(tmp_path: Path, found: str) -> None:
    volume = tmp_path / "credentials"
    agreed = set()

    def begin() -> None:
        shutil.rmtree(volume, ignore_errors=True)
        volume.mkdir()
        if found != "nothing":
            prepare(volume)
        if found == "a broken address":
            (volume / "verifier" / URL_FILE).unlink()
        elif found == "others' rights":
            (volume / "redis" / ACL_FILE).unlink()

    for _step in killed_at_each_step(lambda: prepare(volume), begin):
        acl = volume / "redis" / ACL_FILE
        agreed.add(acl.exists() and acl.read_text() == acl_file("local", passwords(volume)))
        prepare(volume)
        assert_right(volume)
        before = state(volume)
        prepare(volume)
        assert state(volume) == before
    assert False in agreed, "no death fell between the addresses and the rights"
