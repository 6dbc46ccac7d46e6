"""The suite itself: enough cases, each with a name of its own, and a few by the real command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.integration.attacks import (
    test_against_accepted,
    test_bytes,
    test_chain_form,
    test_fields,
    test_keys,
    test_meanwhile,
    test_service_users,
    test_vouching,
)
from tests.support.attacks import NEW, OLD, Named, WrongFile, sentence
from tests.support.r3mes_shell import Shell

FAMILIES: dict[str, list[Named]] = {
    "bytes": [*test_bytes.CASES],
    "fields": [*test_fields.CASES],
    "keys": [*test_keys.CASES],
    "chain form": [*test_chain_form.CASES],
    "against what is accepted": [*test_against_accepted.CASES],
    "service users": [*test_service_users.CASES],
    "vouching": [*test_vouching.CASES],
    "meanwhile": [*test_meanwhile.CASES],
}
LEAST = {
    "bytes": 60,
    "fields": 110,
    "keys": 45,
    "chain form": 60,
    "against what is accepted": 50,
    "service users": 60,
    "vouching": 45,
    "meanwhile": 30,
}


def test_every_family_has_its_cases_and_every_case_a_name_of_its_own() -> None:
    names = Counter(case.attacks for cases in FAMILIES.values() for case in cases)

    assert [name for name, times in names.items() if times > 1 or not name.strip()] == []
    assert sum(names.values()) >= 60
    for family, least in LEAST.items():
        assert len(FAMILIES[family]) >= least, family


BY_COMMAND: list[WrongFile] = [test_bytes.ENCODINGS[0], test_chain_form.PATH[0]]


@pytest.mark.slow  # each case starts the command several times
@pytest.mark.parametrize("attack", BY_COMMAND, ids=sentence)
def test_the_command_refuses_with_exit_code_78_before_and_after_an_acceptance(
    tmp_path: Path, attack: WrongFile
) -> None:
    shell = Shell(tmp_path)
    shell.genesis.write_bytes(attack.raw)
    done = shell.run("init")
    assert (done.returncode, done.stdout) == (78, "")
    assert attack.found in done.stderr
    assert not shell.store.exists()

    shell.genesis.write_bytes(OLD)
    assert shell.run("init").returncode == 0
    shell.genesis.write_bytes(attack.raw)
    assert shell.run("genesis", "accept", "--yes").returncode == 78
    assert (shell.store / "trust" / "genesis.json").read_bytes() == OLD


@pytest.mark.slow
def test_the_command_refuses_a_swapped_digest_and_another_than_the_pinned_one(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.genesis.write_bytes(OLD)
    assert shell.run("init", R3MES_GENESIS_SHA256="0" * 64).returncode == 78
    assert not shell.store.exists()
    assert shell.run("init").returncode == 0

    shell.genesis.write_bytes(NEW)

    done = shell.run("init")
    assert (done.returncode, done.stdout) == (78, "")
    assert "changed Tiny" in done.stderr
    assert (shell.store / "trust" / "genesis.json").read_bytes() == OLD
