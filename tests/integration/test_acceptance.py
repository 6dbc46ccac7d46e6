"""A start and an acceptance on a real store: what is written, what is refused, and that refusing writes nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.acceptance import (
    AcceptancePlan,
    StartAction,
    accept,
    genesis_file,
    load_init_settings,
    plan_acceptance,
    stage,
    start_host_store,
    trust_state,
)
from shared.errors import ConfigurationError, GenesisError, StoreError
from shared.genesis import MAX_PLAIN_BYTES, Genesis, parse_genesis_stream
from shared.genesis.json_stream import Source
from shared.settings import CommonSettings, load_settings
from shared.store.layout import DIRECTORIES
from shared.store.trust import TrustWatch, read_trust
from tests.support.geneses import OTHER_DIGEST, chain_entry, chain_form, entry, list_form, other_entry, plain_form
from tests.support.genesis_host import Host, snapshot

OLD = plain_form()
NEW = plain_form(verification_sha256=OTHER_DIGEST)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def started(host: Host) -> Host:
    """A host that accepted OLD."""
    host.file.write_bytes(OLD)
    host.start()
    return host


def test_a_first_start_accepts_the_operators_file(host: Host) -> None:
    host.file.write_bytes(OLD)

    outcome = host.start()

    assert outcome.action is StartAction.ACCEPT
    assert host.layout.genesis.read_bytes() == OLD
    accepted = json.loads(host.layout.accepted.read_bytes())
    assert set(accepted) == {"sha256", "accepted_at", "signature"}
    assert accepted["sha256"] == hashlib.sha256(OLD).hexdigest()
    assert json.loads(host.layout.store_json.read_bytes()) == {"format": 1, "kind": "host"}
    assert read_trust(host.layout).genesis == outcome.genesis
    assert stat.S_IMODE(host.layout.genesis.stat().st_mode) == 0o644


def test_the_directories_get_the_modes_of_the_table(started: Host) -> None:
    for rights in DIRECTORIES:
        mode = (started.layout.root / rights.name).stat().st_mode
        assert stat.S_ISDIR(mode)
        assert stat.S_IMODE(mode) == rights.mode, rights.name


def test_a_second_start_changes_nothing(started: Host) -> None:
    before = snapshot(started.layout.root)

    assert started.start().action is StartAction.GO_ON
    assert snapshot(started.layout.root) == before


def test_a_check_before_the_first_start_leaves_no_trace(host: Host) -> None:
    host.file.write_bytes(OLD)

    assert host.check().action is StartAction.ACCEPT
    assert not host.layout.root.exists()


def test_where_no_operators_file_is_found_the_accepted_one_stands(started: Host) -> None:
    started.file.unlink()

    outcome = started.start()

    assert outcome.action is StartAction.GO_ON
    assert [pin.model_name for pin in outcome.genesis.models] == ["Tiny"]


def test_without_any_genesis_a_start_says_which_file_is_missing(host: Host) -> None:
    error = host.refused()

    assert isinstance(error, GenesisError)
    assert error.file == str(host.file)
    assert error.found == "no such file"
    assert not host.layout.root.exists()


def test_a_wrong_file_is_refused_though_another_one_is_accepted(started: Host) -> None:
    started.file.write_bytes(plain_form(verification_sha256="YOUR_SHA256"))

    assert isinstance(started.refused(), GenesisError)


def test_a_changed_file_stops_the_start_and_shows_the_difference(started: Host) -> None:
    started.file.write_bytes(list_form(entry(required_disk_space_gb=0.2), other_entry()))

    error = started.refused()

    assert "changed Tiny" in error.message
    assert "required_disk_space_gb: 0.1 -> 0.2" in error.message
    assert "added Other" in error.message
    assert OTHER_DIGEST in error.message
    assert "r3mes genesis accept" in error.next_step
    assert read_trust(started.layout).genesis.by_digest(OTHER_DIGEST) is None


def test_a_file_that_differs_in_white_space_alone_is_a_changed_file(started: Host) -> None:
    started.file.write_bytes(OLD + b"\n")

    assert "formatting" in started.refused().message


def test_accept_takes_the_changed_file_over(started: Host) -> None:
    started.file.write_bytes(NEW)

    started.accept()

    assert read_trust(started.layout).genesis.by_digest(OTHER_DIGEST)
    assert started.start().action is StartAction.GO_ON


def test_accepting_what_is_accepted_keeps_its_date(started: Host) -> None:
    before = snapshot(started.layout.root)

    started.accept()

    assert snapshot(started.layout.root) == before


def test_accept_works_on_a_host_that_never_started(host: Host) -> None:
    host.file.write_bytes(OLD)

    host.accept()

    assert read_trust(host.layout).genesis.by_name("Tiny")
    assert host.start().action is StartAction.GO_ON


def test_a_staged_genesis_stops_no_start_and_waits_for_accept(started: Host) -> None:
    started.file.write_bytes(NEW)
    started.accept(staged=True)

    outcome = started.start()

    assert outcome.action is StartAction.GO_ON_STAGED
    trust = read_trust(started.layout)
    assert trust.genesis.by_digest(OTHER_DIGEST) is None
    assert trust.staged is not None
    assert trust.staged.by_digest(OTHER_DIGEST)

    started.accept()

    trust = read_trust(started.layout)
    assert trust.genesis.by_digest(OTHER_DIGEST)
    assert trust.staged is None
    assert not started.layout.next_genesis.exists()


def test_a_file_that_is_neither_accepted_nor_staged_stops_the_start(started: Host) -> None:
    started.file.write_bytes(NEW)
    started.accept(staged=True)
    started.file.write_bytes(list_form(other_entry()))

    assert "removed Tiny" in started.refused().message


def test_accepting_the_old_file_again_ends_the_staging(started: Host) -> None:
    started.file.write_bytes(NEW)
    started.accept(staged=True)
    started.file.write_bytes(OLD)

    started.accept()

    assert read_trust(started.layout).staged is None


def test_nothing_can_be_staged_before_something_is_accepted(host: Host) -> None:
    host.file.write_bytes(OLD)

    with pytest.raises(StoreError, match="no genesis is accepted"):
        host.accept(staged=True)
    assert not host.layout.root.exists()


def test_an_accept_killed_between_its_writes_is_completed_by_the_next_start(started: Host) -> None:
    started.file.write_bytes(NEW)
    started.layout.genesis.write_bytes(NEW)

    with pytest.raises(StoreError):
        read_trust(started.layout)
    assert started.start().action is StartAction.REPAIR
    assert read_trust(started.layout).genesis.by_digest(OTHER_DIGEST)


def test_an_exchanged_accepted_genesis_is_not_accepted(started: Host) -> None:
    started.layout.genesis.write_bytes(NEW)

    assert "disagree" in started.refused().message

    started.accept()

    assert read_trust(started.layout).genesis.by_digest(OTHER_DIGEST) is None


def test_a_removed_acceptance_is_not_replaced_silently(started: Host) -> None:
    started.file.write_bytes(NEW)
    started.layout.genesis.unlink()
    started.layout.accepted.unlink()

    assert "gone" in started.refused().message


def test_a_next_genesis_left_by_a_killed_accept_is_removed_by_the_next_start(started: Host) -> None:
    trust_state.write_staged(started.layout, [OLD])

    started.start()

    assert not started.layout.next_genesis.exists()


def test_an_acceptance_by_another_while_a_person_thinks_is_noticed(started: Host) -> None:
    settings, values = load_init_settings(started.environ, project=started.project)
    started.file.write_bytes(NEW)
    plan = plan_acceptance(settings, values)
    started.file.write_bytes(list_form(other_entry()))
    started.accept()

    with pytest.raises(ConfigurationError, match="in between"):
        accept(plan)
    assert read_trust(started.layout).genesis.by_name("Other")


def test_what_was_shown_is_written_though_the_file_was_replaced_since(started: Host) -> None:
    started.file.write_bytes(NEW)
    plan = plan_acceptance(*load_init_settings(started.environ, project=started.project))
    later = started.file.with_name("later.json")
    later.write_bytes(list_form(other_entry()))
    later.replace(started.file)

    accept(plan)

    assert started.layout.genesis.read_bytes() == NEW
    assert read_trust(started.layout).genesis.sha256 == plan.candidate.sha256


@pytest.mark.parametrize("do", [accept, stage])
def test_a_large_file_that_was_changed_in_place_after_it_was_shown_is_not_written(
    started: Host, do: Callable[[AcceptancePlan], None]
) -> None:
    large = chain_form(chain_entry(entry(verification_sha256=OTHER_DIGEST)), bank={"blob": "QUJD" * MAX_PLAIN_BYTES})
    started.file.write_bytes(large)
    plan = plan_acceptance(*load_init_settings(started.environ, project=started.project))
    started.file.write_bytes(large.replace(b"Tiny", b"Tony"))
    before = snapshot(started.layout.trust)

    with pytest.raises(ConfigurationError, match="no longer what was checked"):
        do(plan)

    assert snapshot(started.layout.trust) == before


def test_what_is_accepted_already_is_not_parsed_again_by_a_service_that_starts(
    started: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def parse(source: Source, *, file: str) -> Genesis:
        parsed.append(file)
        return parse_genesis_stream(source, file=file)

    monkeypatch.setattr(genesis_file, "parse_genesis_stream", parse)
    start_host_store(load_settings(CommonSettings, started.environ), started.environ)
    assert parsed == []

    started.start()
    assert parsed == [str(started.layout.genesis)]


@pytest.mark.parametrize("is_there", [True, False], ids=["the same file", "no file"])
def test_what_an_older_version_accepted_and_this_one_refuses_starts_nothing(started: Host, is_there: bool) -> None:
    wrong = plain_form(verification_sha256="YOUR_SHA256")
    started.layout.genesis.write_bytes(wrong)
    accepted = json.loads(started.layout.accepted.read_bytes())
    accepted["sha256"] = hashlib.sha256(wrong).hexdigest()
    started.layout.accepted.write_text(json.dumps(accepted))
    started.file.write_bytes(wrong)
    if not is_there:
        started.file.unlink()

    assert isinstance(started.refused(), GenesisError)
    # A service on a host hashes what is unchanged, and then reads what was accepted by itself.
    layout = start_host_store(load_settings(CommonSettings, started.environ), started.environ)
    with pytest.raises(GenesisError, match="verification_sha256"):
        TrustWatch(layout)


STORE_FILES = [
    ("another kind", {"format": 1, "kind": "container"}, "container store"),
    ("a newer format", {"format": 2, "kind": "host", "new": []}, "store format 2"),
    ("an unknown kind", {"format": 1, "kind": "cloud"}, "cannot be read"),
    ("no object", [], "cannot be read"),
    ("format that is true", {"format": True, "kind": "host"}, "cannot be read"),
]


@pytest.mark.parametrize(("what", "document", "message"), STORE_FILES, ids=[case[0] for case in STORE_FILES])
def test_a_store_that_is_not_ours_is_not_touched(started: Host, what: str, document: object, message: str) -> None:
    started.layout.store_json.write_text(json.dumps(document))

    assert message in started.refused().message, what
    with pytest.raises(StoreError):
        started.accept()


def test_a_container_store_is_refused_on_a_host_and_the_other_way_round(started: Host) -> None:
    assert "host store" in started.refused(R3MES_STORE_KIND="container").message


def test_a_link_in_the_place_of_a_directory_is_not_followed(started: Host, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    started.layout.incoming.rmdir()
    started.layout.incoming.symlink_to(elsewhere)

    with pytest.raises(StoreError):
        started.start()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700


def _start_service(environ: dict[str, str], barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    start_host_store(load_settings(CommonSettings, environ), environ)


@pytest.mark.slow
def test_services_that_start_together_accept_once_and_all_go_on(host: Host) -> None:
    host.file.write_bytes(OLD)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_start_service, args=(host.environ, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert read_trust(host.layout).genesis.by_name("Tiny")
