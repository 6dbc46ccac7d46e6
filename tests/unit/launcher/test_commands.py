"""The table of commands says what their modules say, and the names that a TAB offers are harmless."""

import os
from pathlib import Path

import pytest
from typer.main import get_command

from launcher.cli import COMMANDS, app
from launcher.completing import complete_model
from launcher.deferred import Row, load
from tests.support.geneses import chain_entry, chain_form, entry, list_form, other_entry, plain_form


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_a_row_has_the_first_paragraph_of_the_command_s_help(row: Row) -> None:
    paragraph = load(row).help.partition("\n\n")[0]
    assert row.help == " ".join(paragraph.split())


def test_who_looks_through_all_commands_finds_those_of_a_group() -> None:
    found = get_command(app).commands  # type: ignore[attr-defined]
    assert {"show", "check", "add", "accept", "migrate"} <= set(found["genesis"].commands)
    assert dict(found["verify"].commands) == {}


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `trust/` of the store, in a project's folder without a genesis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R3MES_MODELS_DIR", str(tmp_path / "store"))
    folder = tmp_path / "store" / "trust"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("genesis", "names"),
    [
        (plain_form(), ["Tiny"]),
        (list_form(entry(), other_entry()), ["Tiny", "Other"]),
        (chain_form(chain_entry(), chain_entry(other_entry(), is_active=False)), ["Tiny"]),
        (b'{"model_ipfs": "Qm"}', []),
    ],
)
def test_the_models_of_each_form_are_offered(trust: Path, genesis: bytes, names: list[str]) -> None:
    (trust / "genesis.json").write_bytes(genesis)
    assert complete_model("") == names
    assert complete_model("O") == [name for name in names if name == "Other"]


def test_a_staged_model_is_offered_after_the_accepted_ones(trust: Path) -> None:
    (trust / "genesis.json").write_bytes(plain_form())
    (trust / "next.json").write_bytes(list_form(other_entry(), entry()))
    assert complete_model("") == ["Tiny", "Other"]


def test_where_nothing_is_accepted_the_operator_s_file_counts(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete_model("") == []
    Path("genesis").mkdir()
    Path("genesis/genesis.json").write_bytes(plain_form())
    assert complete_model("") == ["Tiny"]
    monkeypatch.setenv("R3MES_GENESIS", "elsewhere.json")
    assert complete_model("") == []
    assert trust.is_dir()


@pytest.mark.parametrize("name", ["$(reboot)", "`reboot`", "a'b", 'a"b', "a b", "\\$(x)", "a:b", "a\nb", "-rf", "Käse"])
def test_a_name_that_a_shell_could_take_for_something_else_is_not_offered(trust: Path, name: str) -> None:
    (trust / "genesis.json").write_bytes(list_form(entry(model_name=name), other_entry()))
    assert complete_model("") == ["Other"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"{"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_bytes(b"[" * 200_000),
        lambda path: path.write_bytes(b'{"models": [1, {"model_name": 2}], "model_config": null, "app_state": []}'),
        lambda path: path.write_bytes(plain_form() + b" " * 1024 * 1024),
        lambda path: path.mkdir(),
        os.mkfifo,
    ],
    ids=["cut short", "no text", "deep", "other types", "large", "a folder", "a pipe"],
)
def test_a_genesis_that_cannot_be_read_offers_nothing_and_fails_nothing(trust: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(trust / "genesis.json")
    assert complete_model("") == []


def test_a_store_in_the_home_of_nobody_offers_nothing(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3MES_MODELS_DIR", "~nobody-of-that-name/models")
    assert trust.is_dir()
    assert complete_model("") == []
