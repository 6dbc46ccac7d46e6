"""Everything that was given must agree before a start writes: digest, addresses, bind, kind of the store, owners."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.acceptance import StartAction, start_host_store
from shared.settings import CommonSettings, load_settings
from shared.store.layout import DIRECTORIES
from shared.store.trust import read_trust
from tests.support.geneses import plain_form
from tests.support.genesis_host import Host

OLD = plain_form()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_pinned_digest_is_over_the_raw_bytes(host: Host) -> None:
    host.file.write_bytes(OLD)
    pinned = hashlib.sha256(OLD).hexdigest()

    assert pinned in host.refused(R3MES_GENESIS_SHA256="0" * 64).message
    assert host.start(R3MES_GENESIS_SHA256=pinned.upper()).action is StartAction.ACCEPT
    host.file.unlink()
    assert pinned in host.refused(R3MES_GENESIS_SHA256="0" * 64).message


SETTINGS: list[tuple[Mapping[str, str], str]] = [
    ({"R3MES_GENESIS_PUBKEY": "RWQ"}, "R3MES_GENESIS_PUBKEY"),
    ({"R3MES_GENESIS_SIGNATURE": "genesis.json.minisig"}, "R3MES_GENESIS_SIGNATURE"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b"}, "R3MES_CHAIN_RPC"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b,https://A:443/"}, "twice"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b,http://169.254.169.254"}, "link-local"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b,c:26657"}, "R3MES_CHAIN_RPC"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b,https://user:secret@c"}, "R3MES_CHAIN_RPC"),
    ({"R3MES_CHAIN_RPC": "https://a,https://b,https://c?key=x"}, "query"),
    ({"R3MES_GENESIS_SHA256": "abc"}, "R3MES_GENESIS_SHA256"),
    ({"R3MES_GENESSIS": "x"}, "R3MES_GENESSIS"),
    ({"R3MES_BIND": "0.0.0.0"}, "R3MES_API_KEYS"),  # noqa: S104
    ({"R3MES_BIND": "::"}, "R3MES_API_KEYS"),
    ({"R3MES_BIND": "192.168.1.5"}, "R3MES_API_KEYS"),
    ({"R3MES_BIND": "myhost"}, "R3MES_BIND"),
    ({"R3MES_API_KEYS": "key", "R3MES_API_KEYS_FILE": "keys"}, "R3MES_API_KEYS"),
    ({"R3MES_API_KEYS_FILE": "no-such-file"}, "R3MES_API_KEYS_FILE"),
    ({"R3MES_ALLOW_HTTP_SOURCES": "yes"}, "R3MES_ALLOW_HTTP_SOURCES"),
    ({"R3MES_JOINED_NODES": "gpu2,GPU3"}, "R3MES_JOINED_NODES"),
    ({"R3MES_JOINED_NODES": "gpu2,gpu2"}, "R3MES_JOINED_NODES"),
    ({"R3MES_JOINED_NODES": "gpu2,here", "R3MES_NODE": "here"}, "R3MES_JOINED_NODES"),
    ({"HF_ENDPOINT": "mirror"}, "HF_ENDPOINT"),
]


@pytest.mark.parametrize(("environ", "named"), SETTINGS, ids=lambda value: str(value)[:40])
def test_a_setting_that_cannot_stand_stops_the_start(host: Host, environ: Mapping[str, str], named: str) -> None:
    host.file.write_bytes(OLD)

    error = host.refused(**environ)

    assert named in error.diagnostics()
    assert not host.layout.root.exists()


OPEN_BINDS: list[Mapping[str, str]] = [
    {"R3MES_BIND": "0.0.0.0", "R3MES_API_KEYS": "key"},  # noqa: S104
    {"R3MES_BIND": "0.0.0.0", "R3MES_API_KEYS_FILE": "keys"},  # noqa: S104
    {"R3MES_BIND": "0.0.0.0", "R3MES_ALLOW_OPEN": "1"},  # noqa: S104
    {"R3MES_BIND": "127.0.0.2"},
    {"R3MES_BIND": "::1"},
]


@pytest.mark.parametrize("environ", OPEN_BINDS, ids=str)
def test_an_open_bind_needs_keys_or_an_explicit_word(host: Host, environ: Mapping[str, str]) -> None:
    host.file.write_bytes(OLD)
    (host.project / "keys").write_text("key\n")

    assert host.start(**environ).action is StartAction.ACCEPT


def test_plain_http_is_accepted_only_where_the_operator_allows_it(host: Host) -> None:
    host.file.write_bytes(plain_form(download_source="http://127.0.0.1:8000/tiny.gguf"))

    assert "R3MES_ALLOW_HTTP_SOURCES=127.0.0.1:8000" in host.refused().next_step
    assert host.start(R3MES_ALLOW_HTTP_SOURCES="127.0.0.1:8000").action is StartAction.ACCEPT


def test_hf_endpoint_may_be_a_local_mirror(host: Host) -> None:
    host.file.write_bytes(OLD)

    assert host.start(HF_ENDPOINT="http://127.0.0.1:8000").action is StartAction.ACCEPT


def test_a_service_that_does_not_know_the_downloaders_settings_starts_on_what_was_accepted(host: Host) -> None:
    host.file.write_bytes(plain_form(download_source="http://127.0.0.1:8000/tiny.gguf"))
    host.start(R3MES_ALLOW_HTTP_SOURCES="1")

    layout = start_host_store(load_settings(CommonSettings, host.environ), host.environ)

    assert read_trust(layout).genesis.by_name("Tiny")
    host.refused()  # `init` judges them at every start


def test_in_a_container_a_service_accepts_nothing(host: Host) -> None:
    host.file.write_bytes(OLD)
    environ = {**host.environ, "R3MES_STORE_KIND": "container"}

    start_host_store(load_settings(CommonSettings, environ), environ)

    assert not host.layout.root.exists()


def test_the_genesis_beside_the_working_directory_is_the_default(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.project / "genesis").mkdir()
    (host.project / "genesis" / "genesis.json").write_bytes(OLD)
    monkeypatch.chdir(host.project)
    environ = {"R3MES_MODELS_DIR": str(host.layout.root)}

    layout = start_host_store(load_settings(CommonSettings, environ), environ)

    assert layout.genesis.read_bytes() == OLD


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners are set by root alone")


@root_only
def test_in_a_container_store_the_directories_get_the_owners_of_the_table(host: Host) -> None:
    host.file.write_bytes(OLD)

    host.start(R3MES_STORE_KIND="container")

    for rights in DIRECTORIES:
        status = (host.layout.root / rights.name).stat()
        found = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        assert found == (rights.uid, rights.gid, rights.mode), rights.name
    assert (host.layout.genesis.stat().st_uid, host.layout.accepted.stat().st_uid) == (0, 0)


@root_only
def test_in_a_container_store_wrong_owners_are_corrected_and_verified_files_left_alone(host: Host) -> None:
    host.file.write_bytes(OLD)
    host.start(R3MES_STORE_KIND="container")
    model = host.layout.verified / "file"
    model.write_bytes(b"model")
    os.chown(host.layout.incoming, 0, 0)
    before = model.stat()

    host.start(R3MES_STORE_KIND="container")

    assert host.layout.incoming.stat().st_uid == 10001
    assert stat.S_IMODE(host.layout.incoming.stat().st_mode) == 0o2770
    assert (model.stat().st_ctime_ns, model.stat().st_uid) == (before.st_ctime_ns, before.st_uid)


def test_in_a_container_store_the_operators_file_must_be_there(host: Host) -> None:
    assert host.refused(R3MES_STORE_KIND="container").message.startswith(str(host.file))
