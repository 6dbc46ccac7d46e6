"""How much of a download may be read: who announces it, and whether the announcer lives."""

import secrets

import pytest

from services.verifier.announced import LEASE_EXPIRY_SECONDS, LeaseWatch, readable_prefix
from shared.states import Source
from shared.store.records import Journal, Lease

MINE, OTHER = "1" * 32, "2" * 32


def journal(prefix: int, ranges: tuple[tuple[int, int], ...]) -> Journal:
    return Journal(
        sha256="a" * 64,
        size=1000,
        generation=secrets.token_hex(16),
        ino=1,
        instance=MINE,
        source=Source.HUGGINGFACE,
        url="",
        revision="",
        prefix=prefix,
        ranges=ranges,
        complete=False,
        updated_at=0.0,
    )


@pytest.mark.parametrize(
    ("prefix", "ranges", "live", "file_size", "readable"),
    [
        pytest.param(700, ((0, 500),), MINE, 1000, 700, id="the living writer's prefix, durable or not"),
        pytest.param(700, ((0, 500),), OTHER, 1000, 500, id="another's prefix: what is durable"),
        pytest.param(700, ((0, 500),), None, 1000, 500, id="nobody's prefix: what is durable"),
        pytest.param(700, ((100, 500),), None, 1000, 0, id="durable, but not from the beginning"),
        pytest.param(700, (), OTHER, 1000, 0, id="another's prefix, nothing durable"),
        pytest.param(0, ((0, 500),), MINE, 1000, 500, id="durable beyond the prefix"),
        pytest.param(1000, ((0, 1000),), MINE, 300, 300, id="beyond the file"),
        pytest.param(1000, ((0, 1000),), None, 0, 0, id="an empty file"),
    ],
)
def test_readable_prefix(
    prefix: int, ranges: tuple[tuple[int, int], ...], live: str | None, file_size: int, readable: int
) -> None:
    assert readable_prefix(journal(prefix, ranges), live, file_size) == readable


def lease(boot_id: str, instance: str = MINE, renewed_at: float = 0.0) -> Lease:
    return Lease(host="h", boot_id=boot_id, pid_namespace="n", pid=1, instance=instance, token=1, renewed_at=renewed_at)


def test_a_lease_of_this_boot_lives_until_it_has_not_changed_for_its_time() -> None:
    watch = LeaseWatch("this boot")
    first = lease("this boot")
    assert watch.live_instance(first, now=100.0) == MINE
    assert watch.live_instance(first, now=100.0 + LEASE_EXPIRY_SECONDS - 1) == MINE
    assert watch.live_instance(first, now=100.0 + LEASE_EXPIRY_SECONDS) is None
    assert watch.live_instance(lease("this boot", renewed_at=5.0), now=200.0) == MINE


def test_a_lease_of_another_boot_lives_only_once_it_changes() -> None:
    """After a power cut the old lease still lies there, and what its writer announced may be gone."""
    watch = LeaseWatch("this boot")
    assert watch.live_instance(lease("another"), now=100.0) is None
    assert watch.live_instance(lease("another"), now=104.0) is None
    assert watch.live_instance(lease("another", renewed_at=5.0), now=105.0) == MINE
    assert watch.live_instance(lease("another", renewed_at=5.0), now=106.0) == MINE
    assert watch.live_instance(lease("this boot", OTHER), now=107.0) == OTHER


def test_without_a_lease_nobody_lives_and_the_next_begins_unknown() -> None:
    watch = LeaseWatch("this boot")
    assert watch.live_instance(lease("another"), now=1.0) is None
    assert watch.live_instance(None, now=2.0) is None
    assert watch.live_instance(lease("another", renewed_at=9.0), now=3.0) is None
