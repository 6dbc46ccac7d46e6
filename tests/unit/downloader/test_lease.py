from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.downloader.limits import LEASE_EXPIRY_SECONDS
from services.downloader.transfer.lease import Identity, LeaseKeeper
from shared.store.records import Lease

ME = Identity(host="h", boot_id="b", pid_namespace="pid:[1]", pid=7, instance="1" * 32)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def keeper(identity: Identity, clock: Clock | None = None, *, alive: bool = True) -> LeaseKeeper:
    return LeaseKeeper(identity, monotonic=clock or Clock(), is_alive=lambda _: alive)


def other(**changes: object) -> Identity:
    return replace(ME, instance="2" * 32, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.json"


def test_a_free_lease_is_taken_and_given_back(path: Path) -> None:
    mine = keeper(ME)
    lease = mine.acquire(path)
    assert lease is not None
    assert Lease.read(path) == lease
    mine.release(path, lease)
    assert not path.exists()


@pytest.mark.parametrize(
    "successor",
    [
        pytest.param(other(), id="the same place and pid: a restarted container"),
        pytest.param(other(pid=8), id="the same place, and the process is gone"),
    ],
)
def test_a_dead_writers_lease_is_taken_over_at_once_with_a_higher_token(path: Path, successor: Identity) -> None:
    first = keeper(ME).acquire(path)
    second = keeper(successor, alive=False).acquire(path)
    assert first is not None
    assert second is not None
    assert second.token > first.token


def test_a_dead_lease_with_the_last_token_is_taken_over_as_well(path: Path) -> None:
    first = keeper(ME).acquire(path)
    assert first is not None
    first.model_copy(update={"token": 2**63 - 1}).write(path)
    second = keeper(other(), alive=False).acquire(path)
    assert second is not None
    assert second.token == 1


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param(other(pid=8), id="another live process"),
        pytest.param(other(host="elsewhere"), id="another host"),
        pytest.param(other(boot_id="later"), id="another boot"),
        pytest.param(other(pid_namespace="pid:[2]"), id="another pid namespace, same pid"),
    ],
)
def test_a_lease_that_does_not_change_is_taken_over_after_its_expiry(path: Path, stranger: Identity) -> None:
    keeper(ME).acquire(path)
    clock = Clock()
    theirs = keeper(stranger, clock)
    assert theirs.acquire(path) is None
    clock.now = LEASE_EXPIRY_SECONDS - 0.1
    assert theirs.acquire(path) is None
    clock.now = LEASE_EXPIRY_SECONDS
    assert theirs.acquire(path) is not None


def test_a_lease_that_is_renewed_is_never_taken_over(path: Path) -> None:
    mine = keeper(ME)
    lease = mine.acquire(path)
    clock = Clock()
    theirs = keeper(other(pid=8), clock)
    for _ in range(10):
        assert lease is not None
        assert theirs.acquire(path) is None
        lease = mine.renew(path, lease)
        clock.now += LEASE_EXPIRY_SECONDS * 0.9
    assert lease is not None


def test_who_finds_another_token_stops_and_does_not_remove_it(path: Path) -> None:
    mine = keeper(ME)
    lease = mine.acquire(path)
    assert lease is not None
    theirs = keeper(other()).acquire(path)
    assert not mine.still_holds(path, lease)
    assert mine.renew(path, lease) is None
    mine.release(path, lease)
    assert Lease.read(path) == theirs


def test_who_finds_no_lease_stops(path: Path) -> None:
    mine = keeper(ME)
    lease = mine.acquire(path)
    assert lease is not None
    path.unlink()
    assert mine.renew(path, lease) is None
    assert not path.exists()


def test_a_lease_that_is_not_one_reads_as_absent(path: Path) -> None:
    path.write_bytes(b"[" * 30_000)
    assert keeper(ME).acquire(path) is not None


def test_this_process_has_an_identity_of_its_own_each_time() -> None:
    first, second = Identity.of_this_process(), Identity.of_this_process()
    assert first.instance != second.instance
    assert (first.host, first.boot_id, first.pid_namespace, first.pid) == (
        second.host,
        second.boot_id,
        second.pid_namespace,
        second.pid,
    )
    assert first.boot_id
    assert first.pid_namespace
