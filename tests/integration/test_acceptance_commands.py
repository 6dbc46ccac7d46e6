"""`r3mes init` and `r3mes genesis …` as a person and a script meet them: in a pipe and on a terminal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pexpect
import pytest

from shared.genesis import parse_genesis
from tests.support.chain_nodes import chain_genesis, chain_of, rpc
from tests.support.geneses import DIGEST, OTHER_DIGEST, list_form, other_entry, plain_form
from tests.support.minisign_vectors import GENESIS, public_key, signature
from tests.support.r3mes_shell import R3MES, ROOT, Shell

pytestmark = pytest.mark.slow  # each case starts the command several times

URL = "https://huggingface.co/org/tiny/resolve/main/tiny.gguf"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_the_default_genesis_is_right_and_has_room_for_its_file(shell: Shell) -> None:
    done = shell.run("genesis", "check", str(ROOT / "genesis" / "genesis.json"), "--json")

    assert done.returncode == 0
    assert done.stderr == ""
    (model,) = json.loads(done.stdout)["models"]
    assert model["file_name"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert model["size_bytes"] == 98362432
    assert model["verification_sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_the_example_with_its_placeholder_is_refused_and_add_fills_it_in(shell: Shell) -> None:
    example = shell.project / "llama-3-8b.json"
    example.write_bytes((ROOT / "genesis" / "examples" / "llama-3-8b.json").read_bytes())
    model = shell.project / "Meta-Llama-3-8B-Instruct.Q4_K_M.gguf"
    model.write_bytes(b"GGUF and weights")

    refused = shell.run("genesis", "check", "llama-3-8b.json")

    assert refused.returncode == 78
    assert refused.stdout == ""
    for part in ("llama-3-8b.json", "verification_sha256", "placeholder", "sha256sum", "r3mes genesis add"):
        assert part in refused.stderr

    options = ["--name", "Llama-3-8B-Instruct", "--url", URL, "--genesis", "llama-3-8b.json"]
    assert shell.run("genesis", "add", model.name, *options).returncode == 0
    checked = shell.run("genesis", "check", "llama-3-8b.json", "--json")
    (filled,) = json.loads(checked.stdout)["models"]
    assert filled["verification_sha256"] == hashlib.sha256(b"GGUF and weights").hexdigest()


def test_init_accepts_once_and_check_says_what_it_would_do(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())

    checked = shell.run("init", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "a start accepts it" in checked.stdout
    assert not shell.store.exists()

    assert "accepted" in shell.run("init").stdout
    assert "unchanged" in shell.run("init").stdout
    shell.genesis.write_bytes(list_form(other_entry()))
    for command in (["init"], ["init", "check"]):
        changed = shell.run(*command)
        assert changed.returncode == 78
        assert changed.stdout == ""
        assert "removed Tiny" in changed.stderr
        assert "r3mes genesis accept" in changed.stderr


def test_init_and_its_check_say_the_same_to_a_script(shell: Shell) -> None:
    shell.genesis.write_bytes(GENESIS)
    shell.genesis.with_name("genesis.json.minisig").write_bytes(signature())
    key = {"R3MES_GENESIS_PUBKEY": public_key()}

    spelled = [shell.run("init", *words, **key) for words in (["check", "--json"], ["--json", "check"])]
    assert [done.returncode for done in spelled] == [0, 0]
    checked, same = (json.loads(done.stdout) for done in spelled)
    assert checked == same
    assert (checked["action"], checked["done"]) == ("accept", False)
    assert not shell.store.exists()

    done = json.loads(shell.run("init", "--json", **key).stdout)
    assert done == {**checked, "done": True}
    assert done["genesis"]["sha256"] == hashlib.sha256(GENESIS).hexdigest()
    assert done["genesis"]["models"][0]["model_name"] == "Tiny"
    assert done["store"] == {"root": str(shell.store), "kind": "host"}
    assert done["signature"].startswith("right, key 84DA20379E55B9BA")
    assert (done["chain"], done["redis"]) == (None, None)

    shell.genesis.write_bytes(list_form(other_entry()))
    changed = shell.run("init", "--json")
    assert (changed.returncode, changed.stdout) == (78, "")


def test_nothing_is_staged_and_nobody_asked_where_that_cannot_be_right(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())
    first = shell.run("genesis", "accept", "--stage")
    assert first.returncode == 78
    assert "no genesis is accepted" in first.stderr
    assert not shell.store.exists()

    shell.run("init")
    again = shell.run("genesis", "accept", "--stage")
    assert again.returncode == 78
    assert "is accepted already" in again.stderr
    assert (first.stdout, again.stdout) == ("", ""), "not even the difference is shown"


def test_show_tells_the_accepted_and_the_staged_genesis(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())
    nothing = shell.run("genesis", "show")
    assert nothing.returncode == 78
    assert "r3mes genesis accept" in nothing.stderr

    shell.run("init")
    shell.genesis.write_bytes(list_form(other_entry()))
    assert shell.run("genesis", "accept", "--stage", "--yes").returncode == 0

    shown = json.loads(shell.run("genesis", "show", "--json").stdout)
    assert shown["sha256"] == hashlib.sha256(plain_form()).hexdigest()
    assert shown["models"][0]["model_name"] == "Tiny"
    assert shown["staged"]["models"][0]["model_name"] == "Other"
    plain = shell.run("genesis", "show")
    assert "accepted  sha256" in plain.stdout
    assert "staged  sha256" in plain.stdout


def test_accept_without_a_terminal_wants_yes(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())
    shell.run("init")
    shell.genesis.write_bytes(plain_form(verification_sha256=OTHER_DIGEST))

    asked = shell.run("genesis", "accept")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert OTHER_DIGEST in asked.stdout
    assert shell.run("init", "check").returncode == 78

    done = shell.run("genesis", "accept", "--yes", "--json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["result"] == "accepted"
    assert data["changes"][0]["after"]["verification_sha256"] == OTHER_DIGEST
    again = shell.run("genesis", "accept")
    assert again.returncode == 0
    assert "already" in again.stderr


def answered(shell: Shell, *arguments: str, typed: str) -> int:
    """Accept one genesis, then have another one accepted at a terminal; return the exit code after what is typed."""
    shell.genesis.write_bytes(plain_form())
    shell.run("init")
    shell.genesis.write_bytes(list_form(other_entry()))
    terminal = pexpect.spawn(R3MES[0], [*R3MES[1:], *arguments], cwd=str(shell.project), env=shell.environ, timeout=30)
    terminal.expect("removed Tiny")
    terminal.expect("Accept this genesis")
    terminal.send(typed)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert isinstance(terminal.exitstatus, int)
    return terminal.exitstatus


@pytest.mark.parametrize(("answer", "status", "models"), [("y", 0, "Other"), ("n", 1, "Tiny")])
def test_accept_shows_the_difference_on_a_terminal_and_does_as_it_is_told(
    shell: Shell, answer: str, status: int, models: str
) -> None:
    assert answered(shell, "genesis", "accept", typed=f"{answer}\r") == status
    shown = json.loads(shell.run("genesis", "show", "--json").stdout)
    assert [model["model_name"] for model in shown["models"]] == [models]


@pytest.mark.parametrize(("answer", "status"), [("y\r", 0), ("\x03", 130), ("\x04", 130)])
def test_a_script_s_accept_shows_what_it_asks_about_and_an_interrupt_is_130(
    shell: Shell, answer: str, status: int
) -> None:
    assert answered(shell, "genesis", "accept", "--json", typed=answer) == status


def test_a_provider_s_key_in_an_endpoint_is_not_shown(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())
    for endpoints in ("https://a.example/v3/provider-key,https://b.example/other-key", "a.example/provider-key"):
        done = shell.run("init", "check", R3MES_CHAIN_RPC=endpoints)
        assert done.returncode == 78
        assert "R3MES_CHAIN_RPC: " in done.stderr
        assert "wanted" in done.stderr
        assert "-key" not in done.stderr


def test_a_signature_is_checked_by_every_command_and_shown(shell: Shell) -> None:
    key = {"R3MES_GENESIS_PUBKEY": public_key()}
    shell.genesis.write_bytes(GENESIS)
    beside = shell.genesis.with_name("genesis.json.minisig")
    beside.write_bytes(signature("stranger"))
    commands = (["init", "check"], ["init"], ["genesis", "accept", "--yes"], ["genesis", "accept", "--stage", "--yes"])
    for command in (*commands, ["genesis", "check", "genesis/genesis.json"]):
        refused = shell.run(*command, **key)
        assert refused.returncode == 78, command
        assert "86E3B90CB7238945" in refused.stderr
    assert not shell.store.exists()

    beside.write_bytes(signature())
    shown = "signature right, key 84DA20379E55B9BA, 'genesis of the tests, prehashed'"
    assert shown in shell.run("init", "check", **key).stdout
    assert shell.run("genesis", "check", "genesis/genesis.json", **key).returncode == 0
    assert shell.run("init").returncode == 0
    recorded = shell.run("genesis", "accept", "--yes", **key)
    assert recorded.returncode == 0
    assert shown in recorded.stdout
    assert "records its signature" in recorded.stdout
    assert "already" in shell.run("genesis", "accept", **key).stderr


def test_a_changed_genesis_that_is_signed_still_waits_for_accept(shell: Shell) -> None:
    key = {"R3MES_GENESIS_PUBKEY": public_key()}
    shell.genesis.write_bytes(list_form(other_entry()))
    shell.run("init")
    shell.genesis.write_bytes(GENESIS)
    shell.genesis.with_name("genesis.json.minisig").write_bytes(signature())

    stopped = shell.run("init", **key)

    assert stopped.returncode == 78
    assert "removed Other" in stopped.stderr
    assert shell.run("genesis", "accept", "--yes", **key).returncode == 0
    assert "unchanged" in shell.run("init", **key).stdout


def test_the_chain_s_word_is_shown_and_its_veto_is_an_error_of_configuration(shell: Shell) -> None:
    shell.genesis.write_bytes(plain_form())
    with chain_of(3) as nodes:
        for node in nodes:
            node.serve(chain_genesis(DIGEST))
        chain = {"R3MES_CHAIN_RPC": rpc(nodes)}
        assert "endpoints agree on a registry of 1 models" in shell.run("init", "check", **chain).stdout
        for node in nodes:
            node.serve(chain_genesis(OTHER_DIGEST))
        for command in (["init", "check"], ["init"], ["genesis", "accept", "--yes"]):
            vetoed = shell.run(*command, **chain)
            assert vetoed.returncode == 78
            assert "the chain vetoes Tiny" in vetoed.stderr
    assert not shell.store.exists()
    unreachable = shell.run("init", **chain)
    assert unreachable.returncode == 0
    assert "nothing is vetoed" in unreachable.stdout


def test_add_makes_the_file_and_appends_to_it(shell: Shell) -> None:
    for number, content in ((1, b"GGUF first"), (2, b"GGUF" + bytes(150_000_000))):
        (shell.project / f"m{number}.gguf").write_bytes(content)

    first = shell.run("genesis", "add", "m1.gguf", "--name", "One", "--url", URL)
    assert first.returncode == 0
    assert "\r" not in first.stderr
    second = shell.run("genesis", "add", "m2.gguf", "--name", "Two", "--url", f"{URL}?2", "--json")
    assert second.returncode == 0

    one, two = parse_genesis(shell.genesis.read_bytes(), file="genesis").models
    assert (one.model_name, one.file_name, one.size_bytes) == ("One", "m1.gguf", 10)
    assert two.sha256 == hashlib.sha256(b"GGUF" + bytes(150_000_000)).hexdigest()
    assert two.required_disk_space_gb == 0.2
    assert json.loads(second.stdout)["models"][1] == two.to_json()


WRONG_ADDS = [
    ("a name that is taken", ["--name", "Tiny", "--url", URL], 78, "model_name"),
    ("a wrong URL", ["--name", "One", "--url", "ftp://x/y"], 78, "download_source"),
    ("a wrong CID", ["--name", "One", "--url", URL, "--cid", "Qm"], 78, "ipfs_fallback_hash"),
    ("no URL", ["--name", "One"], 2, "--url"),
]


@pytest.mark.parametrize(("what", "options", "status", "named"), WRONG_ADDS, ids=[case[0] for case in WRONG_ADDS])
def test_an_add_that_would_not_be_right_leaves_the_file_as_it_is(
    shell: Shell, what: str, options: list[str], status: int, named: str
) -> None:
    shell.genesis.write_bytes(plain_form())
    (shell.project / "m1.gguf").write_bytes(b"GGUF")

    done = shell.run("genesis", "add", "m1.gguf", *options)

    assert done.returncode == status, what
    assert named in done.stderr
    assert shell.genesis.read_bytes() == plain_form()
    assert [path.name for path in shell.genesis.parent.iterdir()] == ["genesis.json"]


@pytest.mark.parametrize(("what", "options", "status", "named"), WRONG_ADDS, ids=[case[0] for case in WRONG_ADDS])
def test_an_add_that_no_digest_can_make_right_is_refused_before_the_model_is_read(
    shell: Shell, what: str, options: list[str], status: int, named: str
) -> None:
    shell.genesis.write_bytes(plain_form())

    done = shell.run("genesis", "add", "m1.gguf", *options)

    assert done.returncode == status, what
    assert named in done.stderr
    assert "cannot read" not in done.stderr, "the model, which is not there, was looked for"


def test_add_takes_a_genesis_in_the_home_and_names_a_home_that_nobody_has(shell: Shell, tmp_path: Path) -> None:
    (shell.project / "m1.gguf").write_bytes(b"GGUF")
    options = ["genesis", "add", "m1.gguf", "--name", "One", "--url", URL]

    assert shell.run(*options, HOME=str(tmp_path), R3MES_GENESIS="~/own.json").returncode == 0
    assert parse_genesis((tmp_path / "own.json").read_bytes(), file="own").models[0].model_name == "One"

    unknown = shell.run(*options, R3MES_GENESIS="~nobody-of-that-name/own.json")
    assert unknown.returncode == 78
    assert "R3MES_GENESIS" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_add_warns_of_a_file_that_is_no_gguf_and_of_an_address_that_acceptance_refuses(shell: Shell) -> None:
    (shell.project / "page.gguf").write_bytes(b"<html>")

    done = shell.run("genesis", "add", "page.gguf", "--name", "One", "--url", "http://127.0.0.1:8000/page.gguf")

    assert done.returncode == 0
    assert "GGUF" in done.stderr
    assert "R3MES_ALLOW_HTTP_SOURCES=127.0.0.1:8000" in done.stderr


def test_an_error_is_one_line_with_its_next_step_unless_debugging(shell: Shell) -> None:
    plain = shell.run("genesis", "check", "missing.json")
    debug = shell.run("genesis", "check", "missing.json", R3MES_DEBUG="1")

    assert plain.returncode == debug.returncode == 78
    assert "Traceback" not in plain.stderr
    assert "missing.json" in plain.stderr
    assert "next:" in plain.stderr
    assert "Traceback" in debug.stderr


def test_an_unknown_command_is_a_usage_error(shell: Shell) -> None:
    assert shell.run("genesis", "bogus").returncode == 2
    assert shell.run("genesis", "add").returncode == 2
