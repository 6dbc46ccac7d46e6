"""The controls of the kills: the watch that found nothing wrong there finds each breach that is made here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.verifier.run_once import Outcome, verify_once
from tests.support.crash_child import STEP_BYTES, start_following
from tests.support.slow_download import Download
from tests.support.store_watch import StoreWatch
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

CONTENT = os.urandom(10 * STEP_BYTES)
DIGEST = sha256_of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(CONTENT))


@pytest.fixture
def watch(store: Store) -> Iterator[StoreWatch]:
    watch = StoreWatch(store.layout.root)
    watch.track(DIGEST, len(CONTENT))
    watch.start()
    yield watch
    watch.stop()


def verify(store: Store, watch: StoreWatch) -> Path:
    store.put(DIGEST, CONTENT)
    assert verify_once(store.layout, DIGEST) is Outcome.PROMOTED
    wait_until(lambda: watch.is_verified(DIGEST), what="the watch to see it")
    assert watch.violations == []
    return store.layout.verified_file(DIGEST, "tiny.gguf")


def assert_tells_of(watch: StoreWatch, what: str) -> None:
    wait_until(lambda: watch.violations, what="a breach to be told of")
    assert what in watch.violations[0]


def assert_looks_on_quietly(watch: StoreWatch) -> None:
    looks = watch.looks
    wait_until(lambda: watch.looks > looks + 20, what="some looks")
    assert watch.violations == []


def test_a_verification_is_no_breach(store: Store, watch: StoreWatch) -> None:
    verify(store, watch)
    assert_looks_on_quietly(watch)


def test_a_wrong_byte_in_a_verified_file_is(store: Store, watch: StoreWatch) -> None:
    file = verify(store, watch)
    with file.open("r+b") as opened:
        opened.write(bytes([CONTENT[0] ^ 1]))
    assert_tells_of(watch, "I1")


def test_a_verified_file_that_grows_under_its_name_is(store: Store, watch: StoreWatch) -> None:
    store.layout.verified_dir(DIGEST).mkdir()
    with store.layout.verified_file(DIGEST, "tiny.gguf").open("wb", buffering=0) as file:
        file.write(CONTENT[:-1])
        assert_tells_of(watch, "I1")


def test_a_verified_file_that_vanishes_is(store: Store, watch: StoreWatch) -> None:
    verify(store, watch).unlink()
    assert_tells_of(watch, "was verified and is gone")


def test_a_verified_file_that_somebody_removes_on_purpose_is_none(store: Store, watch: StoreWatch) -> None:
    file = verify(store, watch)
    watch.forget(DIGEST)
    file.unlink()
    watch.track(DIGEST, len(CONTENT))
    assert_looks_on_quietly(watch)


def test_a_complete_file_that_is_removed_before_it_is_verified_is(store: Store, watch: StoreWatch) -> None:
    store.put(DIGEST, CONTENT)
    wait_until(lambda: watch.completions, what="the watch to see that it is complete")
    assert_looks_on_quietly(watch)
    store.layout.data(DIGEST).unlink()
    assert_tells_of(watch, "neither in incoming nor verified")


def test_a_complete_file_that_is_begun_anew_is(store: Store, watch: StoreWatch) -> None:
    store.put(DIGEST, CONTENT)
    wait_until(lambda: watch.completions, what="the watch to see that it is complete")
    store.put(DIGEST, bytes(len(CONTENT)))
    assert_tells_of(watch, "neither in incoming nor verified")


def test_a_wrong_file_is_a_lie_and_its_removal_no_breach(store: Store, watch: StoreWatch) -> None:
    store.put(DIGEST, CONTENT[::-1])
    wait_until(lambda: watch.lies() == {DIGEST}, what="the lie to be seen")
    assert verify_once(store.layout, DIGEST) is Outcome.REJECTED
    assert_looks_on_quietly(watch)


@pytest.mark.parametrize("loses", ["the end of the partial", "the rest of incoming"])
def test_bytes_that_lie_in_two_places_are_kept_until_one_loses_some(
    store: Store, watch: StoreWatch, loses: str
) -> None:
    download = Download(store, CONTENT, mode="low-space")
    download.receive(len(CONTENT) - 1, durable=True)
    child = start_following(store.layout.root, DIGEST)
    child.join(30)
    assert child.exitcode == 0
    download.complete()
    wait_until(lambda: watch.split and watch.completions, what="the watch to find both parts")
    assert_looks_on_quietly(watch)
    if loses == "the end of the partial":
        os.truncate(store.layout.partial_file(DIGEST), STEP_BYTES)
    else:
        os.truncate(store.layout.data(DIGEST), len(CONTENT) - 1)
    assert_tells_of(watch, "neither in incoming nor verified")
