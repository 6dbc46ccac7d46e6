"""Attacks by a chain's genesis: a registry that could be read in two ways, and entries that are not what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.store.trust import read_trust
from tests.support.attacks import WrongFile, sentence, withstands
from tests.support.geneses import DIGEST, OTHER_DIGEST, chain_entry, chain_form, entry, other_entry
from tests.support.genesis_host import Host

RIGHT = chain_form(chain_entry())
REMES = "app_state.remes"
LIST = f"{REMES}.model_registry_list"
EVIL = json.dumps([chain_entry(other_entry())])


def spliced(attacks: str, before: str, text: str, field: str, found: str) -> WrongFile:
    """A right file with this text before (the first) `before`."""
    assert before.encode() in RIGHT
    return WrongFile(attacks, RIGHT.replace(before.encode(), text.encode() + before.encode(), 1), field, found)


def second(attacks: str, wrong: object, field: str, found: str) -> WrongFile:
    """A registry whose second entry is wrong, behind a right one."""
    return WrongFile(attacks, chain_form(chain_entry(other_entry()), wrong), f"{LIST}[1]{field}", found)


def config(attacks: str, field: str, value: object, found: str, name: str = "") -> WrongFile:
    """A second entry in whose config one field is wrong."""
    return second(attacks, chain_entry(entry(**{field: value})), f".config.{name or field}", found)


PATH = [
    spliced("app_state twice", '"app_state"', '"app_state": {}, ', "app_state", "twice"),
    spliced("app_state twice, once by an escape", '"app_state"', '"app\\u005fstate": {}, ', "app_state", "twice"),
    spliced("the module twice", '"remes"', f'"remes": {{"model_registry_list": {EVIL}}}, ', REMES, "twice"),
    spliced("the registry twice", '"roles"', f'"model_registry_list": {EVIL}, ', LIST, "twice"),
    spliced(
        "the registry in both spellings",
        '"roles"',
        f'"modelRegistryList": {EVIL}, ',
        f"{REMES}.modelRegistryList",
        "both of its spellings",
    ),
    spliced("a key twice beside the registry", '"roles"', '"params": 1, ', f"{REMES}.params", "twice"),
    spliced("a key twice at the top", '"chain_id"', '"chain_id": "remes-2", ', "chain_id", "twice"),
    spliced("a plain form beside the chain's", '"chain_id"', '"models": [], ', "models", "beside app_state"),
    spliced(
        "a plain model beside the chain's", '"chain_id"', '"model_config": {}, ', "model_config", "beside app_state"
    ),
    spliced(
        "the legacy form beside the chain's", '"chain_id"', '"model_ipfs": "Qm", ', "model_ipfs", "beside app_state"
    ),
    WrongFile(
        "an app_state that is a string", json.dumps({"app_state": RIGHT.decode()}).encode(), "app_state", "characters)"
    ),
    WrongFile("a module that is a list", b'{"app_state": {"remes": []}}', REMES, "a list"),
    WrongFile(
        "a registry that is an object", b'{"app_state": {"remes": {"model_registry_list": {}}}}', LIST, "an object"
    ),
    WrongFile("the state in another case", RIGHT.replace(b"app_state", b"App_State"), "genesis_time", "an unknown key"),
    WrongFile("the module in another case", RIGHT.replace(b'"remes"', b'"REMES"'), LIST, "no model that can run here"),
    WrongFile("a registry without entries", chain_form(), LIST, "no model that can run here"),
    WrongFile(
        "a registry of entries that are not active", chain_form(chain_entry(is_active=False)), LIST, "1 not active"
    ),
    WrongFile("more entries than any chain has", chain_form(*[{}] * 10_001), LIST, "more than 10000 entries"),
    WrongFile("a chain's genesis that is cut short", RIGHT[:-40], "", "a syntax error"),
    WrongFile("a second chain's genesis behind the first", RIGHT + RIGHT, "", "a syntax error"),
    WrongFile("a NUL behind a chain's genesis", RIGHT + b"\x00", "", "a syntax error"),
    WrongFile("a byte order mark before a chain's genesis", b"\xef\xbb\xbf" + RIGHT, "", "byte order mark"),
    spliced(
        "nesting in a module that nobody reads", '"auth"', f'"bank": {"[" * 90}{"]" * 90}, ', "", "nesting too deep"
    ),
    spliced("NaN in a module that nobody reads", '"auth"', '"bank": NaN, ', "", "NaN"),
]

ENTRIES = [
    second("an entry that is a string", "Tiny", "", "'Tiny'"),
    second("an entry that is null", None, "", "null"),
    second("an unknown key in an entry", chain_entry(owner="remes1"), ".owner", "an unknown key"),
    second("a key in another case in an entry", chain_entry(Is_Active=True), ".Is_Active", "an unknown key"),
    second("active by a string", chain_entry(is_active="true"), ".is_active", "'true'"),
    second("active by a number", chain_entry(is_active=1), ".is_active", "1"),
    second("active and not, in both spellings", chain_entry(isActive=False), ".isActive", "both of its spellings"),
    second("an id beyond 64 bits", chain_entry(model_id=str(2**64)), ".model_id", str(2**64)),
    second("a negative id", chain_entry(model_id="-1"), ".model_id", "'-1'"),
    second("an id in Arabic digits", chain_entry(model_id="\u0661"), ".model_id", "\\u0661"),
    second("an id with an exponent", chain_entry(model_id="1e3"), ".model_id", "'1e3'"),
    second("an id with a separator", chain_entry(model_id="1_0"), ".model_id", "'1_0'"),
    second("a height beyond 63 bits", chain_entry(approved_at_height=str(2**63)), ".approved_at_height", str(2**63)),
    second("a height that is a fraction", chain_entry(approved_at_height=1.5), ".approved_at_height", "1.5"),
    second("an approver that is true", chain_entry(approved_by=True), ".approved_by", "true"),
    second("a day that is none", chain_entry(created_at="2026-02-30T00:00:00Z"), ".created_at", "2026-02-30"),
    second("a time in Arabic digits", chain_entry(created_at="\u0662026-01-01T00:00:00Z"), ".created_at", "\\u0662"),
    second("a config that is a list", chain_entry() | {"config": []}, ".config", "a list"),
    WrongFile(
        "the state of an entry twice",
        chain_form(chain_entry(is_active=False)).replace(b'"is_active"', b'"is_active": true, "is_active"'),
        f"{LIST}[0].is_active",
        "twice",
    ),
    WrongFile(
        "the digest in a config twice",
        RIGHT.replace(
            b'"verification_sha256"', f'"verification_sha256": "{OTHER_DIGEST}", "verification_sha256"'.encode()
        ),
        f"{LIST}[0].config.verification_sha256",
        "twice",
    ),
]

CONFIGS = [
    config("an unknown key in a config", "sha256", DIGEST, "an unknown key"),
    config("the digest in both spellings", "verificationSha256", OTHER_DIGEST, "both of its spellings"),
    config("the file name in both spellings", "fileName", "x.gguf", "both of its spellings"),
    config("the encryption in both spellings", "encryptionType", 1, "both of its spellings"),
    config("an encryption of an unknown name", "encryption_type", "ENCRYPTION_TYPE_NONE", "ENCRYPTION_TYPE_NONE"),
    config("an encryption of an unknown number", "encryption_type", 5, "5"),
    config("an encryption in a string of digits", "encryption_type", "2", "'2'"),
    config("an encryption that is true", "encryption_type", True, "true"),
    config("a model type in lower case", "model_type", "model_type_bitnet", "model_type_bitnet"),
    config("a model type between the known numbers", "model_type", 98, "98"),
    config("an environment beyond 64 bits", "execution_environment_id", 2**64, str(2**64)),
    config("an architecture that is an object", "architecture_config", {}, "an object"),
    config("a lone surrogate in a text", "model_version", "\ud800", "\\ud800"),
    config("a digest of zeros in the chain", "verification_sha256", "0" * 64, "one character repeated"),
    config("an empty digest among other fields", "verification_sha256", "", "which is empty"),
    config("a path in the chain", "file_name", "../../x.gguf", "'../../x.gguf'"),
    config("a file of this host in the chain", "download_source", "file:///etc/shadow", "file:///etc/shadow"),
    config("space that is a word", "required_disk_space_gb", "Infinity", "'Infinity'"),
    config("space beyond every float in a string", "required_disk_space_gb", "1e400", "'1e400'"),
    config("a size above the space in a string", "size_bytes", "100000001", "100000001"),
    second(
        "an active entry with a name and no digest",
        chain_entry({"model_name": "Evil", "file_name": "evil.gguf"}),
        ".config.download_source",
        "no such key",
    ),
    second(
        "an active entry with a fallback alone",
        chain_entry({"ipfs_fallback_hash": "Qm"}),
        ".config.model_name",
        "no such key",
    ),
    second(
        "a second entry of one name",
        chain_entry(other_entry(file_name="x.gguf", verification_sha256=DIGEST)),
        ".config.model_name",
        f"as in {LIST}[0]",
    ),
    second(
        "a wrong type in an encrypted entry",
        chain_entry({"encryption_type": 2, "model_name": 7}),
        ".config.model_name",
        "7",
    ),
    WrongFile(
        "encrypted entries and no other",
        chain_form(chain_entry(entry(encryption_type="ENCRYPTION_TYPE_TEE_SGX"))),
        LIST,
        "'Tiny' carries an encrypted model (ENCRYPTION_TYPE_TEE_SGX)",
    ),
    WrongFile(
        "an encrypted entry that keeps quiet about its kind",
        chain_form(chain_entry(entry(encryption_type=0, decryption_key_holder="remes1"))),
        LIST,
        "decryption_key_holder is given",
    ),
]

CASES = [*PATH, *ENTRIES, *CONFIGS]


@pytest.mark.parametrize("attack", CASES, ids=sentence)
def test_a_chains_genesis_that_could_be_read_in_two_ways_is_refused(tmp_path: Path, attack: WrongFile) -> None:
    withstands(Host(tmp_path), attack)


def test_an_encrypted_entry_beside_a_right_one_is_named_and_pins_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    hidden = chain_entry(other_entry(encryption_type="ENCRYPTION_TYPE_ZERO_KNOWLEDGE"))
    host.file.write_bytes(chain_form(hidden, chain_entry()))

    outcome = host.start()

    assert [left.name for left in outcome.genesis.left_out] == ["'Other'"]
    assert read_trust(host.layout).digests == {DIGEST}


def test_an_entry_that_is_not_active_pins_nothing_whatever_it_holds(tmp_path: Path) -> None:
    host = Host(tmp_path)
    wild = chain_entry(other_entry(file_name="../../x.gguf", unknown=1), is_active=False, also_unknown={})
    host.file.write_bytes(chain_form(wild, chain_entry()))

    host.start()

    assert read_trust(host.layout).digests == {DIGEST}
