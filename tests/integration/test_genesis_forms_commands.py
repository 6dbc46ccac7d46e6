"""`r3mes genesis` with the forms beside the plain ones: a chain's genesis is shown, a legacy one is migrated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shared.genesis import parse_genesis
from tests.support.geneses import chain_entry, chain_form, entry, other_entry, plain_form
from tests.support.r3mes_shell import ROOT, Shell

pytestmark = pytest.mark.slow  # each case starts the command several times

URL = "https://huggingface.co/org/tiny/resolve/main/tiny.gguf"
CID = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"
MODEL = b"GGUF" + bytes(120_000_000)
OPTIONS = ["--file", "tiny.gguf", "--name", "Tiny", "--url", URL]
CHAIN = chain_form(chain_entry(entry(encryption_type=2), model_id="4"), chain_entry(other_entry()))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def legacy(shell: Shell) -> Path:
    path = shell.project / "old.json"
    path.write_text(json.dumps({"model_ipfs": CID}))
    (shell.project / "tiny.gguf").write_bytes(b"GGUF tiny")
    return path


def test_check_says_which_entries_of_a_chain_are_taken_and_which_not(shell: Shell) -> None:
    shell.genesis.write_bytes(CHAIN)

    done = shell.run("genesis", "check", str(shell.genesis))
    assert done.returncode == 0
    assert "Other" in done.stdout
    assert "Tiny" not in done.stdout
    assert "left out: 'Tiny' at app_state.remes.model_registry_list[0] carries an encrypted model" in done.stderr

    data = json.loads(shell.run("genesis", "check", str(shell.genesis), "--json").stdout)
    assert [model["model_name"] for model in data["models"]] == ["Other"]
    assert data["left_out"][0]["path"] == "app_state.remes.model_registry_list[0]"
    assert "TEE_SGX" in data["left_out"][0]["reason"]


def test_a_chain_genesis_is_accepted_shown_and_swapped_like_any_other(shell: Shell) -> None:
    shell.genesis.write_bytes(CHAIN)
    assert "left out: 'Tiny'" in shell.run("init").stderr
    shown = shell.run("genesis", "show")
    assert shown.returncode == 0
    assert hashlib.sha256(CHAIN).hexdigest() in shown.stdout
    assert "left out: 'Tiny'" in shown.stderr

    shell.genesis.write_bytes(chain_form(chain_entry(), chain_entry(other_entry())))
    stopped = shell.run("init")
    assert stopped.returncode == 78
    assert "added Tiny" in stopped.stderr
    assert shell.run("genesis", "accept", "--yes").returncode == 0
    assert len(json.loads(shell.run("genesis", "show", "--json").stdout)["models"]) == 2


def test_add_leaves_a_chain_genesis_alone(shell: Shell) -> None:
    shell.genesis.write_bytes(CHAIN)
    (shell.project / "m.gguf").write_bytes(b"GGUF")

    done = shell.run("genesis", "add", "m.gguf", "--name", "M", "--url", URL)

    assert done.returncode == 2
    assert "chain genesis" in done.stderr
    assert shell.genesis.read_bytes() == CHAIN


def test_the_example_of_a_chain_genesis_is_right(shell: Shell) -> None:
    done = shell.run("genesis", "check", str(ROOT / "genesis" / "examples" / "chain.json"), "--json")

    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert [model["model_name"] for model in data["models"]] == ["SmolLM2-135M-Instruct"]
    assert len(data["left_out"]) == 2


def test_migrate_hashes_fills_in_keeps_the_fallback_and_the_old_file(shell: Shell, legacy: Path) -> None:
    (shell.project / "tiny.gguf").write_bytes(MODEL)
    before = legacy.read_bytes()
    refused = shell.run("genesis", "check", "old.json")
    assert refused.returncode == 78
    assert "r3mes genesis migrate old.json" in refused.stderr

    done = shell.run("genesis", "migrate", "old.json", *OPTIONS)

    assert done.returncode == 0
    assert "hash: 120.0 MB of 120.0 MB (100 %)" in done.stderr
    assert "next: set R3MES_GENESIS=old.migrated.json" in done.stderr
    assert CID in done.stdout
    assert legacy.read_bytes() == before
    new = shell.project / "old.migrated.json"
    assert new.stat().st_mode & 0o777 == 0o644
    (pin,) = parse_genesis(new.read_bytes(), file="new").models
    assert pin.to_json() == {
        "model_name": "Tiny",
        "file_name": "tiny.gguf",
        "download_source": URL,
        "verification_sha256": hashlib.sha256(MODEL).hexdigest(),
        "required_disk_space_gb": 0.2,
        "ipfs_fallback_hash": CID,
        "size_bytes": len(MODEL),
    }
    assert shell.run("genesis", "accept", "--yes", R3MES_GENESIS="old.migrated.json").returncode == 0


def test_migrate_overwrites_only_when_told_and_the_old_file_never(shell: Shell, legacy: Path) -> None:
    shell.genesis.write_bytes(plain_form())
    output = ["--output", "genesis/genesis.json"]

    refused = shell.run("genesis", "migrate", "old.json", *OPTIONS, *output)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert shell.genesis.read_bytes() == plain_form()

    done = shell.run("genesis", "migrate", "old.json", *OPTIONS, *output, "--force", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["models"][0]["ipfs_fallback_hash"] == CID
    assert parse_genesis(shell.genesis.read_bytes(), file="new").models[0].size_bytes == 9

    (shell.project / "same.json").symlink_to(legacy)
    kept = shell.run("genesis", "migrate", "old.json", *OPTIONS, "--output", "same.json", "--force")
    assert kept.returncode == 2
    assert json.loads(legacy.read_bytes()) == {"model_ipfs": CID}


WRONG: list[tuple[str, bytes, list[str], int, str]] = [
    ("a present form", plain_form(), [], 2, "nothing to migrate"),
    ("a chain genesis", chain_form(chain_entry()), [], 2, "nothing to migrate"),
    ("a broken file", b'{"model_ipfs": "Qm', [], 78, "syntax error"),
    ("a wrong CID", b'{"model_ipfs": "Qm"}', [], 78, "model_ipfs"),
    ("a CID that is a list", b'{"model_ipfs": []}', [], 78, "model_ipfs"),
    ("two forms", b'{"model_ipfs": "", "models": []}', [], 78, "legacy form"),
    ("a chain's state beside it", b'{"model_ipfs": "", "app_state": {}}', [], 78, "beside app_state"),
    ("a wrong URL", json.dumps({"model_ipfs": CID}).encode(), ["--url", "ftp://x"], 78, "download_source"),
    ("a file without its extension", json.dumps({"model_ipfs": CID}).encode(), ["--file", "Qm1"], 78, "file_name"),
    ("no such file", json.dumps({"model_ipfs": CID}).encode(), ["--file", "none.gguf"], 2, "none.gguf"),
    ("no such folder", json.dumps({"model_ipfs": CID}).encode(), ["--output", "no/new.json"], 78, "no/new.json"),
]


@pytest.mark.parametrize(("what", "raw", "options", "status", "named"), WRONG, ids=[case[0] for case in WRONG])
def test_a_migration_that_would_not_be_right_writes_nothing(
    shell: Shell, legacy: Path, what: str, raw: bytes, options: list[str], status: int, named: str
) -> None:
    legacy.write_bytes(raw)
    (shell.project / "Qm1").write_bytes(b"GGUF")
    before = sorted(shell.project.iterdir())

    done = shell.run("genesis", "migrate", "old.json", *OPTIONS, *options)

    assert done.returncode == status, what
    assert named in done.stderr
    assert done.stdout == ""
    assert sorted(shell.project.iterdir()) == before
    assert legacy.read_bytes() == raw


def test_a_name_that_no_file_can_have_is_refused_in_a_line(shell: Shell, legacy: Path) -> None:
    model = shell.project / "tiny.gguf"
    model.write_bytes(b"GGUF")
    options = ("--file", str(model), "--name", "Tiny", "--url", "https://huggingface.co/o/t/resolve/main/tiny.gguf")
    done = shell.run("genesis", "migrate", str(legacy), *options, "--output", "a" * 300)
    assert done.returncode == 78
    assert "name too long" in done.stderr
    assert "next: " in done.stderr


def test_what_is_not_carried_over_is_named(shell: Shell, legacy: Path) -> None:
    legacy.write_text(json.dumps({"model_ipfs": "", "comment\x1b[2J": "x"}))

    done = shell.run("genesis", "migrate", "old.json", *OPTIONS)

    assert done.returncode == 0
    assert "no IPFS hash" in done.stderr
    assert "not carried over from old.json: comment\\x1b[2J" in done.stderr
    assert shell.run("genesis", "check", "old.migrated.json").returncode == 0
