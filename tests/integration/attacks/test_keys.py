"""Attacks by the keys of the plain forms: a key twice, one that only looks like a key, values of another shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.attacks import OLD, WrongFile, beside, sentence, spelled, withstands
from tests.support.geneses import ABSENT, DIGEST, OTHER_DIGEST, entry, list_form, other_entry, plain_form
from tests.support.genesis_host import Host

ENTRY = json.dumps(entry())
UNKNOWN = "an unknown key"


def twice(attacks: str, pair: str, name: str) -> WrongFile:
    return WrongFile(attacks, beside(pair), f"model_config.{name}", "twice")


def pretended(attacks: str, key: str, path: str = "") -> WrongFile:
    """A key beside the right ones that another reader might take for one of them."""
    return WrongFile(attacks, beside(f'{json.dumps(key)}: "{OTHER_DIGEST}"'), f"model_config.{path or key}", UNKNOWN)


DUPLICATES = [
    twice("the digest twice", f'"verification_sha256": "{OTHER_DIGEST}"', "verification_sha256"),
    twice("the same digest twice", f'"verification_sha256": "{DIGEST}"', "verification_sha256"),
    twice("the file name twice, once by an escape", '"\\u0066ile_name": "x.gguf"', "file_name"),
    twice(
        "the digest twice, once in escapes alone",
        f'"verification\\u005fsha256": "{OTHER_DIGEST}"',
        "verification_sha256",
    ),
    twice("a wrong value that a right one hides", '"model_name": null', "model_name"),
    twice("the size twice", '"size_bytes": 5, "size_bytes": 6', "size_bytes"),
    WrongFile(
        "the model twice",
        b'{"model_config": %b, "model_config": %b}' % ((ENTRY.encode(),) * 2),
        "model_config",
        "twice",
    ),
    WrongFile("the list twice", b'{"models": [], "models": [%b]}' % ENTRY.encode(), "models", "twice"),
    WrongFile(
        "a key twice in a field that is refused anyway",
        spelled("file_name", '{"a": 1, "a": 2}'),
        "model_config.file_name.a",
        "twice",
    ),
    WrongFile(
        "the digest twice in the second of two models",
        list_form(other_entry(), entry()).replace(
            b'"model_name": "Tiny"', f'"verification_sha256": "{OTHER_DIGEST}", "model_name": "Tiny"'.encode()
        ),
        "models[1].verification_sha256",
        "twice",
    ),
]

PRETENDED = [
    pretended("a key that nobody knows", "sha256"),
    pretended("a key in upper case", "VERIFICATION_SHA256"),
    pretended("a key in camel case", "verificationSha256"),
    pretended("a key with a space behind it", "verification_sha256 ", "'verification_sha256 '"),
    pretended("a key with a space before it", " verification_sha256", "' verification_sha256'"),
    pretended("a key with a NUL behind it", "verification_sha256\x00", "'verification_sha256\\x00'"),
    pretended("a key with an invisible space", "verification\u200b_sha256", "'verification\\u200b_sha256'"),
    pretended("a key with a Cyrillic letter", "verificati\u043en_sha256", "'verificati\\u043en_sha256'"),
    pretended("a key with a hyphen", "verification-sha256", "'verification-sha256'"),
    pretended("an empty key", "", "''"),
    pretended("the key of a prototype", "__proto__"),
    pretended("a key of the chain's form", "container_hash"),
    pretended("the key of the legacy form within a model", "model_ipfs"),
    WrongFile("an unknown key at the top", OLD[:-1] + b', "version": 1}', "version", UNKNOWN),
    WrongFile("a form in another case", OLD.replace(b"model_config", b"Model_Config"), "Model_Config", UNKNOWN),
    WrongFile("a form by a look-alike", b'{"mod\xd0\xb5ls": []}', "'mod\\u0435ls'", UNKNOWN),
    WrongFile(
        "the required key under another case alone",
        plain_form(file_name=ABSENT, File_Name="x.gguf"),
        "model_config.File_Name",
        UNKNOWN,
    ),
]

SHAPES = [
    WrongFile("a list for the file", b"[%b]" % OLD, "", "a list"),
    WrongFile("a string that holds the file", json.dumps(OLD.decode()).encode(), "", "characters)"),
    WrongFile("null for the file", b"null", "", "null"),
    WrongFile("a number for the file", b"78", "", "78"),
    WrongFile("an empty object", b"{}", "", "an empty object"),
    WrongFile(
        "both plain forms in one file", b'{"model_config": %b, "models": [%b]}' % ((ENTRY.encode(),) * 2), "", "both"
    ),
    WrongFile("the legacy form", b'{"model_ipfs": "QmX"}', "model_ipfs", "the legacy form"),
    WrongFile(
        "the legacy form beside a plain one", OLD[:-1] + b', "model_ipfs": "QmX"}', "model_ipfs", "the legacy form"
    ),
    WrongFile("a model that is null", b'{"model_config": null}', "model_config", "null"),
    WrongFile("a model that is a list", b'{"model_config": [%b]}' % ENTRY.encode(), "model_config", "a list"),
    WrongFile("a model that is a string", json.dumps({"model_config": ENTRY}).encode(), "model_config", "characters)"),
    WrongFile("models in an object", b'{"models": {"0": %b}}' % ENTRY.encode(), "models", "an object"),
    WrongFile("no models", b'{"models": []}', "models", "an empty list"),
    WrongFile("a list within the list", b'{"models": [[%b]]}' % ENTRY.encode(), "models[0]", "a list"),
    WrongFile("a null behind a right model", b'{"models": [%b, null]}' % ENTRY.encode(), "models[1]", "null"),
    WrongFile("a model without a file name", plain_form(file_name=ABSENT), "model_config.file_name", "no such key"),
    WrongFile(
        "a model without a fallback",
        plain_form(ipfs_fallback_hash=ABSENT),
        "model_config.ipfs_fallback_hash",
        "no such key",
    ),
]

COLLISIONS = [
    WrongFile(
        "two models of one name",
        list_form(entry(), other_entry(model_name="Tiny")),
        "models[1].model_name",
        "as in models[0]",
    ),
    WrongFile(
        "two models in one file",
        list_form(entry(), other_entry(file_name="tiny.gguf")),
        "models[1].file_name",
        "as in models[0]",
    ),
    WrongFile(
        "two file names that a file system takes for one",
        list_form(entry(), other_entry(file_name="TINY.gguf")),
        "models[1].file_name",
        "as in models[0]",
    ),
    WrongFile(
        "one digest for two models",
        list_form(entry(), other_entry(verification_sha256=DIGEST)),
        "models[1].verification_sha256",
        "as in models[0]",
    ),
    WrongFile(
        "one digest for two models, once in upper case",
        list_form(entry(), other_entry(verification_sha256=DIGEST.upper())),
        "models[1].verification_sha256",
        "as in models[0]",
    ),
]

CASES = [*DUPLICATES, *PRETENDED, *SHAPES, *COLLISIONS]


@pytest.mark.parametrize("attack", CASES, ids=sentence)
def test_a_file_that_could_be_read_in_two_ways_is_read_in_none(tmp_path: Path, attack: WrongFile) -> None:
    withstands(Host(tmp_path), attack)
