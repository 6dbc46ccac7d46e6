import json
import os
import threading
from pathlib import Path

import pytest

from shared.errors import GenesisError, StoreError
from shared.store import trust
from shared.store import trust as trust_module
from shared.store.atomic import replace_bytes
from shared.store.records import AcceptedDocument
from shared.store.trust import TrustWatch, read_trust
from tests.support.geneses import chain_entry, chain_form
from tests.support.geneses import entry as geneses_entry
from tests.support.verifier_store import Store, entry, sha256_of

ONE, TWO = sha256_of(b"one"), sha256_of(b"two")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(ONE))


def genesis(*entries: dict[str, object]) -> bytes:
    return json.dumps({"models": list(entries)}).encode()


def test_what_was_accepted_is_read(store: Store) -> None:
    read = read_trust(store.layout)
    assert read.digests == {ONE}
    assert read.genesis.sha256 == sha256_of(store.layout.genesis.read_bytes())
    assert read.staged is None


@pytest.mark.parametrize("name", ["genesis", "accepted"])
def test_half_a_pair_is_refused(store: Store, name: str) -> None:
    getattr(store.layout, name).unlink()
    with pytest.raises(StoreError, match="no genesis is accepted"):
        read_trust(store.layout)


def test_a_pair_that_disagrees_is_refused(store: Store) -> None:
    store.layout.genesis.write_bytes(genesis(entry(TWO)))
    with pytest.raises(StoreError, match=r"is not what accepted\.json says"):
        read_trust(store.layout)


def test_accepted_bytes_that_do_not_parse_are_a_genesis_error(store: Store) -> None:
    store.accept(entry("0" * 64))
    with pytest.raises(GenesisError):
        read_trust(store.layout)


def test_a_genesis_that_is_a_link_is_not_read(store: Store, tmp_path: Path) -> None:
    store.layout.genesis.rename(tmp_path / "elsewhere")
    store.layout.genesis.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        read_trust(store.layout)


def test_staged_models_are_pinned_too_and_a_broken_stage_is_none(store: Store) -> None:
    store.layout.next_genesis.write_bytes(genesis(entry(TWO, "two")))
    assert read_trust(store.layout).digests == {ONE, TWO}
    store.layout.next_genesis.write_bytes(b"broken")
    assert read_trust(store.layout).digests == {ONE}


def test_the_watch_notices_a_new_genesis_once(store: Store) -> None:
    watch = TrustWatch(store.layout)
    assert watch.poll() is None
    store.accept(entry(TWO))
    accepted = watch.poll()
    assert accepted is not None
    assert accepted.digests == {TWO} == watch.current.digests
    assert watch.poll() is None


def test_the_watch_keeps_what_runs_while_the_pair_disagrees(store: Store) -> None:
    watch = TrustWatch(store.layout)
    accepted = store.layout.accepted.read_bytes()
    store.accept(entry(TWO))
    whole = store.layout.accepted.read_bytes()
    store.layout.accepted.write_bytes(accepted)  # as between the two writes
    assert watch.poll() is None
    assert watch.current.digests == {ONE}
    store.layout.accepted.write_bytes(whole)
    assert watch.poll() is not None


def test_a_start_between_the_two_writes_of_an_acceptance_waits_for_the_second(store: Store) -> None:
    before = store.layout.accepted.read_bytes()
    store.accept(entry(TWO))
    whole = store.layout.accepted.read_bytes()
    store.layout.accepted.write_bytes(before)
    second = threading.Timer(0.2, replace_bytes, [store.layout.accepted, whole], {"mode": 0o644})
    second.start()
    watch = TrustWatch(store.layout)
    second.join()
    assert watch.current.digests == {TWO}
    assert watch.poll() is None


def test_a_start_does_not_wait_for_long_for_a_pair_that_disagrees(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "ACCEPTANCE_SECONDS", 0.1)
    store.layout.genesis.write_bytes(genesis(entry(TWO)))
    with pytest.raises(StoreError, match=r"is not what accepted\.json says"):
        TrustWatch(store.layout)


def test_the_watch_notices_what_is_staged_and_unstaged(store: Store) -> None:
    watch = TrustWatch(store.layout)
    store.layout.next_genesis.write_bytes(genesis(entry(TWO, "two")))
    assert watch.poll() is not None
    store.layout.next_genesis.unlink()
    assert watch.poll() is not None
    assert watch.current.digests == {ONE}


def test_accepted_bytes_that_stay_wrong_are_parsed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = TrustWatch(store.layout)
    store.accept(entry("0" * 64))
    assert watch.poll() is None
    with monkeypatch.context() as patched:
        patched.setattr(trust_module, "read_trust", lambda _: pytest.fail("parsed again, though nothing changed"))
        assert watch.poll() is None
    assert watch.current.digests == {ONE}
    store.accept(entry(TWO))
    assert watch.poll() is not None


def test_an_accepted_chain_genesis_is_read_and_watched(store: Store) -> None:
    raw = chain_form(chain_entry(geneses_entry(verification_sha256=TWO)))
    store.layout.genesis.write_bytes(raw)
    AcceptedDocument(sha256=sha256_of(raw), accepted_at=0.0).write(store.layout.accepted)
    assert read_trust(store.layout).digests == {TWO}
    store.layout.genesis.write_bytes(raw + b" ")
    with pytest.raises(StoreError, match=r"is not what accepted\.json says"):
        read_trust(store.layout)


def test_the_same_genesis_written_anew_is_no_change(store: Store) -> None:
    watch = TrustWatch(store.layout)
    os.utime(store.layout.genesis)
    assert watch.poll() is None
