"""Digest and signature at acceptance and at every start: all that are given must agree, else nothing is written."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from shared.acceptance import StartAction, start_host_store
from shared.errors import ConfigurationError
from shared.settings import CommonSettings, load_settings
from shared.store.trust import read_trust
from tests.support.genesis_host import Host, snapshot
from tests.support.minisign_vectors import GENESIS, public_key, signature

KEY = {"R3MES_GENESIS_PUBKEY": public_key()}
CHANGED = GENESIS.replace(b"Tiny", b"Tony")
SHA256 = hashlib.sha256(GENESIS).hexdigest()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose operator's file is the signed one, with its signature beside it."""
    host = Host(tmp_path)
    host.file.write_bytes(GENESIS)
    beside(host).write_bytes(signature())
    return host


def beside(host: Host) -> Path:
    return host.file.with_name("genesis.json.minisig")


def recorded(host: Host) -> str | None:
    signature = json.loads(host.layout.accepted.read_bytes())["signature"]
    assert signature is None or isinstance(signature, str)
    return signature


@pytest.mark.parametrize("name", ["prehashed", "legacy"])
def test_a_right_signature_is_accepted_and_recorded(host: Host, name: str) -> None:
    beside(host).write_bytes(signature(name))

    assert host.check(**KEY).action is StartAction.ACCEPT
    assert host.start(**KEY).action is StartAction.ACCEPT
    assert recorded(host) == signature(name).decode()
    assert host.start(**KEY).action is StartAction.GO_ON


def test_the_signature_may_lie_elsewhere_in_the_project(host: Host) -> None:
    beside(host).rename(host.project / "signed")

    assert "no such file" in host.refused(**KEY).message
    assert host.start(**KEY, R3MES_GENESIS_SIGNATURE="signed").action is StartAction.ACCEPT


def test_a_key_without_a_signature_stops_the_start(host: Host) -> None:
    beside(host).unlink()

    error = host.refused(**KEY)

    assert str(beside(host)) in error.message
    assert "84DA20379E55B9BA" in error.next_step
    assert not host.layout.root.exists()


def test_a_wrong_signature_stops_the_start_and_says_what_is_wrong_with_it(host: Host) -> None:
    beside(host).write_bytes(signature("stranger"))

    error = host.refused(**KEY)

    assert "86E3B90CB7238945" in error.message
    assert "84DA20379E55B9BA" in error.message
    assert not host.layout.root.exists()


def test_a_right_signature_over_other_bytes_stops_the_start(host: Host) -> None:
    host.file.write_bytes(CHANGED)

    assert "not over these bytes" in host.refused(**KEY).message


def test_a_right_signature_does_not_make_up_for_another_digest(host: Host) -> None:
    assert SHA256 in host.refused(**KEY, R3MES_GENESIS_SHA256="0" * 64).message
    assert host.start(**KEY, R3MES_GENESIS_SHA256=SHA256).action is StartAction.ACCEPT


def test_a_right_digest_does_not_make_up_for_another_signature(host: Host) -> None:
    beside(host).write_bytes(signature("stranger"))

    assert "86E3B90CB7238945" in host.refused(**KEY, R3MES_GENESIS_SHA256=SHA256).message


def test_a_signature_that_is_named_without_a_key_stops_the_start(host: Host) -> None:
    error = host.refused(R3MES_GENESIS_SIGNATURE=str(beside(host)))

    assert "R3MES_GENESIS_PUBKEY" in error.next_step


def test_a_signature_that_only_lies_there_is_ignored_with_a_line(host: Host) -> None:
    structlog.reset_defaults()
    with capture_logs() as lines:
        assert host.start().action is StartAction.ACCEPT

    assert [line["file"] for line in lines if "ignored" in line["event"]] == [str(beside(host))]
    assert recorded(host) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a directory"])
def test_what_is_no_file_in_the_signatures_place_stops_the_start(host: Host, make: object) -> None:
    beside(host).unlink()
    make(beside(host))  # type: ignore[operator]

    assert host.refused(**KEY).message.startswith(str(beside(host)))


def test_a_signature_that_is_taken_away_stops_the_next_start_and_changes_nothing_that_runs(host: Host) -> None:
    host.start(**KEY)
    beside(host).unlink()

    host.refused(**KEY)

    assert read_trust(host.layout).genesis.by_name("Tiny")


def test_a_changed_file_with_the_old_signature_is_not_even_shown_as_a_difference(host: Host) -> None:
    host.start(**KEY)
    host.file.write_bytes(CHANGED)

    assert "not over these bytes" in host.refused(**KEY).message
    before = snapshot(host.layout.root)
    for staged in (False, True):
        with pytest.raises(ConfigurationError, match="not over these bytes"):
            host.accept(staged=staged, **KEY)
    assert snapshot(host.layout.root) == before


def test_without_the_operators_file_the_recorded_signature_is_checked(host: Host) -> None:
    host.start(**KEY)
    host.file.unlink()
    beside(host).unlink()

    assert host.start(**KEY).action is StartAction.GO_ON
    assert "86E3B90CB7238945" in host.refused(R3MES_GENESIS_PUBKEY=public_key("stranger")).message


def test_without_the_operators_file_a_key_finds_that_nothing_was_signed(host: Host) -> None:
    host.start()
    host.file.unlink()

    assert "without a signature" in host.refused(**KEY).message


def test_a_genesis_and_its_record_exchanged_together_do_not_pass_the_key(host: Host) -> None:
    host.start(**KEY)
    host.file.unlink()
    accepted = json.loads(host.layout.accepted.read_bytes())
    host.layout.genesis.write_bytes(CHANGED)
    host.layout.accepted.write_text(json.dumps({**accepted, "sha256": hashlib.sha256(CHANGED).hexdigest()}))

    assert "not over these bytes" in host.refused(**KEY).message


def test_a_signature_for_what_is_accepted_already_is_recorded_by_accept(host: Host) -> None:
    host.start()
    assert recorded(host) is None

    host.accept(**KEY)
    assert recorded(host) == signature().decode()
    before = snapshot(host.layout.root)
    host.accept(**KEY)
    assert snapshot(host.layout.root) == before


def test_an_interrupted_acceptance_is_completed_with_its_signature(host: Host) -> None:
    host.start(**KEY)
    host.layout.accepted.unlink()

    assert host.start(**KEY).action is StartAction.REPAIR
    assert recorded(host) == signature().decode()


def test_every_service_on_a_host_checks_the_signature(host: Host) -> None:
    environ = {**host.environ, **KEY}
    beside(host).write_bytes(signature("stranger"))
    with pytest.raises(ConfigurationError, match="86E3B90CB7238945"):
        start_host_store(load_settings(CommonSettings, environ), environ)
    assert not host.layout.root.exists()

    beside(host).write_bytes(signature())
    layout = start_host_store(load_settings(CommonSettings, environ), environ)
    assert layout.genesis.read_bytes() == GENESIS


def test_in_a_container_the_key_is_read_from_the_env_file(host: Host) -> None:
    (host.project / ".env").write_text(f"R3MES_GENESIS_PUBKEY={public_key('stranger')}\n")

    assert "84DA20379E55B9BA" in host.refused(R3MES_STORE_KIND="container").message


@pytest.mark.parametrize("module", ["cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"])
def test_without_the_package_that_judges_signatures_nothing_is_taken_for_signed(
    host: Host, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    error = host.refused(**KEY)

    assert "not installed" in error.message
    assert "launcher" in error.next_step
