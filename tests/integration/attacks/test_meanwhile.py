"""Attacks on the moment and on the operator: an exchange while a person looks, settings that are not what they seem.

Redis is no way to another digest: a job or a hint that names one is refused where it is read, as
tests/faults/verifier/test_forged_jobs.py, tests/faults/verifier/test_hostile_work.py and tests/unit/test_hints.py show.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.acceptance import AcceptancePlan, accept, load_init_settings, plan_acceptance, stage
from shared.errors import ConfigurationError
from shared.store.trust import read_trust
from tests.support.attacks import NEW, OLD, Deed, Running, sentence, speaks
from tests.support.geneses import DIGEST, OTHER_DIGEST, list_form, other_entry
from tests.support.genesis_host import Host, snapshot

THIRD = list_form(other_entry(model_name="Third"))


def planned(host: Host) -> AcceptancePlan:
    """Return what a person is shown, who then thinks about it."""
    settings, values = load_init_settings(host.environ, project=host.project)
    return plan_acceptance(settings, values)


@dataclass(frozen=True)
class Exchange:
    """Something done to the operator's file after its difference was shown and before a person says yes."""

    attacks: str
    do: Callable[[Host], object]


def _linked(host: Host) -> None:
    host.file.unlink()
    (host.project / "third.json").write_bytes(THIRD)
    host.file.symlink_to("third.json")


def _piped(host: Host) -> None:
    host.file.unlink()
    os.mkfifo(host.file)


def _renamed_over(host: Host) -> None:
    (host.project / "third.json").write_bytes(THIRD)
    (host.project / "third.json").rename(host.file)


EXCHANGES = [
    Exchange("the file rewritten while a person looks", lambda host: host.file.write_bytes(THIRD)),
    Exchange("another file renamed over it while a person looks", _renamed_over),
    Exchange("a link in its place while a person looks", _linked),
    Exchange("the file removed while a person looks", lambda host: host.file.unlink()),
    Exchange("the file emptied while a person looks", lambda host: os.truncate(host.file, 0)),
    Exchange("a named pipe in its place while a person looks", _piped),
]


@pytest.mark.parametrize("staged", [False, True], ids=["accepted", "staged"])
@pytest.mark.parametrize("attack", EXCHANGES, ids=sentence)
def test_exactly_what_was_shown_is_written(tmp_path: Path, attack: Exchange, *, staged: bool) -> None:
    host = Host(tmp_path)
    Running(host)
    host.file.write_bytes(NEW)
    plan = planned(host)
    assert OTHER_DIGEST in str(plan.changes)

    attack.do(host)
    (stage if staged else accept)(plan)

    written = host.layout.next_genesis if staged else host.layout.genesis
    assert written.read_bytes() == NEW
    trust = read_trust(host.layout)
    assert (trust.staged if staged else trust.genesis) == plan.candidate.genesis


def _accepted_by_another(host: Host) -> None:
    host.file.write_bytes(THIRD)
    host.accept()


def _staged_by_another(host: Host) -> None:
    host.file.write_bytes(THIRD)
    host.accept(staged=True)


def _lock_linked(host: Host) -> None:
    host.layout.trust_lock.unlink()
    host.layout.trust_lock.symlink_to(host.project / "elsewhere")


def _trust_linked(host: Host) -> None:
    host.layout.trust.rename(host.project / "elsewhere")
    host.layout.trust.symlink_to(host.project / "elsewhere")


# Done between the plan and the yes; `says` is why the yes counts no more.
BETWEEN = [
    Deed("another acceptance in between", _accepted_by_another, ("another acceptance came in between",)),
    Deed("another staging in between", _staged_by_another, ("another acceptance came in between",)),
    Deed(
        "the accepted bytes exchanged in between", lambda host: host.layout.genesis.write_bytes(THIRD), ("in between",)
    ),
    Deed("the record removed in between", lambda host: host.layout.accepted.unlink(), ("in between",)),
    Deed(
        "the store's kind changed in between",
        lambda host: host.layout.store_json.write_text('{"format": 1, "kind": "container"}'),
        ("container store",),
    ),
    Deed("a link in the lock's place", _lock_linked, ("cannot lock",)),
    Deed("a link in the place of trust/", _trust_linked, ("cannot prepare the store",)),
]


@pytest.mark.parametrize("attack", BETWEEN, ids=sentence)
def test_a_yes_to_what_is_no_longer_there_writes_nothing(tmp_path: Path, attack: Deed) -> None:
    host = Host(tmp_path)
    Running(host)
    host.file.write_bytes(NEW)
    plan = planned(host)
    attack.do(host)
    before = snapshot(tmp_path)

    for say_yes in (accept, stage):
        with pytest.raises(ConfigurationError) as refused:
            say_yes(plan)
        speaks(refused.value, *attack.says)
    assert snapshot(tmp_path) == before
    assert host.layout.genesis.read_bytes() != NEW


def _nothing(_: Host) -> None:
    pass


def named(attacks: str, name: str, value: str, *says: str) -> Deed:
    return Deed(attacks, _nothing, says or (name,), {name: value})


SETTINGS = [
    named(
        "a misspelt pin", "R3MES_GENESIS_SHA265", "0" * 64, "R3MES_GENESIS_SHA265", "did you mean R3MES_GENESIS_SHA256?"
    ),
    named(
        "a misspelt key", "R3MES_GENESIS_PUB_KEY", "RW", "R3MES_GENESIS_PUB_KEY", "did you mean R3MES_GENESIS_PUBKEY?"
    ),
    named("a pin in lower case", "R3MES_genesis_sha256", "0" * 64, "R3MES_genesis_sha256"),
    named("a name with a Cyrillic letter", "R3MES_GEN\u0415SIS", "x", "unknown setting", "\\u0415"),
    named("a kind of store in another case", "R3MES_STORE_KIND", "Container"),
    named("a way to allow every origin", "R3MES_ALLOW_HTTP_SOURCES", "*"),
    named("a chain of two nodes", "R3MES_CHAIN_RPC", "https://a,https://b"),
    named(
        "a chain whose node is cloud metadata",
        "R3MES_CHAIN_RPC",
        "https://a,https://b,http://169.254.169.254",
        "link-local",
    ),
    named("a mirror with a password", "HF_ENDPOINT", "https://me:hunter2@mirror.org"),
    named("ports open to others without keys", "R3MES_BIND", "0.0.0.0", "R3MES_BIND", "R3MES_API_KEYS"),  # noqa: S104 - refused
    named("a store in a home that nobody has", "R3MES_MODELS_DIR", "~nobody-here/models"),
    named("a genesis in a home that nobody has", "R3MES_GENESIS", "~nobody-here/genesis.json"),
    Deed(
        "a secret given twice",
        _nothing,
        ("R3MES_API_KEYS and R3MES_API_KEYS_FILE are both set",),
        {"R3MES_API_KEYS": "a", "R3MES_API_KEYS_FILE": "b"},
    ),
]


@pytest.mark.parametrize("attack", SETTINGS, ids=sentence)
def test_a_setting_that_is_not_what_it_seems_stops_the_start(tmp_path: Path, attack: Deed) -> None:
    running = Running(Host(tmp_path))
    error = running.host.refused(**attack.environ)
    speaks(error, *attack.says)
    assert "hunter2" not in error.diagnostics()
    running.accepts_no(*attack.says, **attack.environ)
    running.is_unmoved()


@dataclass(frozen=True)
class EnvFile:
    """A container's `.env` that must stop `init`."""

    attacks: str
    raw: bytes
    says: str


ENV_FILES = [
    EnvFile("a misspelt pin in .env", b"R3MES_GENESIS_SHA265=0\n", "did you mean R3MES_GENESIS_SHA256?"),
    EnvFile("a misspelt name without a value in .env", b"R3MES_GENESIS_PUBKY\n", "R3MES_GENESIS_PUBKY"),
    EnvFile("another digest in .env", b"R3MES_GENESIS_SHA256=" + b"ab" * 32 + b"\n", "R3MES_GENESIS_SHA256"),
    EnvFile("a pin in .env that is cut short", b"R3MES_GENESIS_SHA256=abcdef\n", "R3MES_GENESIS_SHA256"),
    EnvFile("a line that is no setting", b"R3MES_NODE=a\n=R3MES_GENESIS_SHA256 0\n", "line 2"),
    EnvFile("an .env in UTF-16", "R3MES_GENESIS_SHA256=0".encode("utf-16"), "cannot read"),
    EnvFile("an .env with NULs", b"R3MES_GENESIS=genesis.json\0.bak\n", "NUL"),
    EnvFile("an .env without end", b"#" * (1024 * 1024 + 1), "larger than"),
    EnvFile("a secret twice in .env", b"HF_TOKEN=x\nHF_TOKEN_FILE=y\n", "HF_TOKEN and HF_TOKEN_FILE are both set"),
    EnvFile("a home in .env that nobody has", b"R3MES_GENESIS_SIGNATURE=~nobody-here/x\n", "R3MES_GENESIS_SIGNATURE"),
]


@pytest.mark.parametrize("attack", ENV_FILES, ids=sentence)
def test_an_env_file_that_cannot_stand_stops_init(tmp_path: Path, attack: EnvFile) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(OLD)
    (host.project / ".env").write_bytes(attack.raw)

    speaks(host.refused(R3MES_STORE_KIND="container"), attack.says)
    assert not host.layout.root.exists()


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir], ids=["a named pipe", "a directory"])
def test_what_is_no_file_in_the_place_of_env_stops_init_without_waiting(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(OLD)
    put(host.project / ".env")

    speaks(host.refused(R3MES_STORE_KIND="container"), str(host.project / ".env"))
    assert not host.layout.root.exists()


def test_two_who_say_yes_at_once_are_one_acceptance_and_one_refusal(tmp_path: Path) -> None:
    host = Host(tmp_path)
    Running(host)
    host.file.write_bytes(NEW)
    first, second = planned(host), planned(host)

    accept(first)
    with pytest.raises(ConfigurationError, match="in between"):
        accept(second)

    assert read_trust(host.layout).digests == {OTHER_DIGEST} != {DIGEST}


CASES = [*EXCHANGES, *BETWEEN, *SETTINGS, *ENV_FILES]
