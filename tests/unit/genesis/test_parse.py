"""Right geneses are read alike in every spelling; wrong ones name file, field, found and wanted."""

from __future__ import annotations

import hashlib
import json

import pytest

from shared.errors import ExitCode, GenesisError
from shared.genesis import MAX_PLAIN_BYTES, Genesis, ModelPin, parse_genesis
from tests.support.geneses import ABSENT, DIGEST, OTHER_DIGEST, entry, list_form, other_entry, plain_form

FILE = "genesis.json"
CID_V0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"
CID_V1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


def refused(raw: bytes) -> GenesisError:
    with pytest.raises(GenesisError) as caught:
        parse_genesis(raw, file=FILE)
    error = caught.value
    assert error.exit_code is ExitCode.CONFIGURATION
    assert error.file == FILE
    assert error.found
    assert error.wanted
    assert error.next_step
    assert error.diagnostics().isprintable() or "\n  next: " in error.diagnostics()
    return error


def test_the_plain_form_is_one_model() -> None:
    raw = plain_form(size_bytes=98362432, ipfs_fallback_hash=CID_V1)

    genesis = parse_genesis(raw, file=FILE)

    pin = ModelPin(
        model_name="Tiny",
        file_name="tiny.gguf",
        download_source="https://huggingface.co/org/tiny/resolve/main/tiny.gguf",
        sha256=DIGEST,
        required_disk_space_gb=0.1,
        ipfs_fallback_hash=CID_V1,
        size_bytes=98362432,
    )
    assert genesis == Genesis(models=(pin,), sha256=hashlib.sha256(raw).hexdigest())
    assert pin.required_bytes == 100_000_000
    assert genesis.by_digest(DIGEST) == pin
    assert genesis.by_name("Tiny") == pin
    assert genesis.by_digest(OTHER_DIGEST) is None
    assert genesis.by_name("tiny") is None


def test_the_list_form_keeps_the_order_of_the_file() -> None:
    genesis = parse_genesis(list_form(other_entry(), entry()), file=FILE)

    assert [pin.model_name for pin in genesis.models] == ["Other", "Tiny"]
    assert genesis.models[0].size_bytes is None


def test_what_is_parsed_goes_out_as_it_came_in() -> None:
    wire = entry(size_bytes=5, required_disk_space_gb=4.92, ipfs_fallback_hash=CID_V0)

    assert parse_genesis(list_form(wire), file=FILE).models[0].to_json() == wire


RIGHT: list[tuple[str, object, object]] = [
    ("model_name", "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
    ("model_name", "Llama 3 8B (Q4_K_M)", "Llama 3 8B (Q4_K_M)"),
    ("model_name", "x" * 128, "x" * 128),
    ("file_name", "Meta-Llama-3-8B-Instruct.Q4_K_M.gguf", "Meta-Llama-3-8B-Instruct.Q4_K_M.gguf"),
    ("file_name", "a b+c,d.gguf", "a b+c,d.gguf"),
    ("file_name", "a" * 250 + ".gguf", "a" * 250 + ".gguf"),
    ("file_name", "state-of-the-art.gguf", "state-of-the-art.gguf"),
    ("download_source", "http://127.0.0.1:8000/m.gguf?download=true", "http://127.0.0.1:8000/m.gguf?download=true"),
    ("download_source", "https://[2001:db8::1]:8443/m%20m.gguf", "https://[2001:db8::1]:8443/m%20m.gguf"),
    ("download_source", "https://hub.local/@org/m.gguf", "https://hub.local/@org/m.gguf"),
    ("verification_sha256", DIGEST.upper(), DIGEST),
    ("required_disk_space_gb", 5, 5.0),
    ("required_disk_space_gb", 1e-9, 1e-9),
    ("required_disk_space_gb", 1_000_000, 1e6),
    ("ipfs_fallback_hash", CID_V0, CID_V0),
    ("ipfs_fallback_hash", CID_V1.upper(), CID_V1.upper()),
    ("size_bytes", 100_000_000, 100_000_000),
]


@pytest.mark.parametrize(("field", "value", "read"), RIGHT, ids=lambda value: str(value)[:24])
def test_a_right_value_is_accepted(field: str, value: object, read: object) -> None:
    pin = parse_genesis(plain_form(**{field: value}), file=FILE).models[0]

    assert getattr(pin, {"verification_sha256": "sha256"}.get(field, field)) == read


# What is wrong, the field, the value.
WRONG_FIELDS: list[tuple[str, str, object]] = [
    ("an empty name", "model_name", ""),
    ("a name of spaces", "model_name", " "),
    ("a name with a leading space", "model_name", " Tiny"),
    ("a name with a trailing space", "model_name", "Tiny "),
    ("a name with two spaces", "model_name", "Tiny  One"),
    ("a name with a line break", "model_name", "Tiny\n"),
    ("a name with a quote", "model_name", 'Tiny"} 1'),
    ("a name with a look-alike letter", "model_name", "Tin\u0443"),
    ("a name that writes to the terminal", "model_name", "\x1b[2JTiny"),
    ("a name that is too long", "model_name", "x" * 129),
    ("a name that is a number", "model_name", 7),
    ("a name that is null", "model_name", None),
    ("no name", "model_name", ABSENT),
    ("an empty file name", "file_name", ""),
    ("a path", "file_name", "sub/tiny.gguf"),
    ("a path upwards", "file_name", "../tiny.gguf"),
    ("an absolute path", "file_name", "/tiny.gguf"),
    ("a Windows path", "file_name", "..\\tiny.gguf"),
    ("a hidden file", "file_name", ".tiny.gguf"),
    ("an option", "file_name", "-tiny.gguf"),
    ("the extension alone", "file_name", ".gguf"),
    ("another extension", "file_name", "tiny.safetensors"),
    ("a second extension", "file_name", "tiny.gguf.exe"),
    ("an upper-case extension", "file_name", "tiny.GGUF"),
    ("a NUL", "file_name", "tiny\x00.gguf"),
    ("a line break", "file_name", "tiny.gguf\n"),
    ("a tab", "file_name", "tiny\t.gguf"),
    ("a Cyrillic letter", "file_name", "t\u0456ny.gguf"),
    ("a right-to-left override", "file_name", "tiny\u202effug.gguf"),
    ("a lone surrogate", "file_name", "tiny\ud800.gguf"),
    ("a long file name", "file_name", "a" * 251 + ".gguf"),
    ("one part of a split model", "file_name", "tiny-00001-of-00003.gguf"),
    ("a file name that is a list", "file_name", ["tiny.gguf"]),
    ("no file name", "file_name", ABSENT),
    ("an empty URL", "download_source", ""),
    ("a path for a URL", "download_source", "/tiny.gguf"),
    ("a file URL", "download_source", "file:///etc/passwd"),
    ("an ftp URL", "download_source", "ftp://host/tiny.gguf"),
    ("an ipfs URL", "download_source", f"ipfs://{CID_V1}"),
    ("a URL without host", "download_source", "https:///tiny.gguf"),
    ("a URL without slashes", "download_source", "https:tiny.gguf"),
    ("a user", "download_source", "https://user@host/tiny.gguf"),
    ("a password", "download_source", "https://user:secret@host/tiny.gguf"),
    ("an empty user", "download_source", "https://@host/tiny.gguf"),
    ("a fragment", "download_source", "https://host/tiny.gguf#x"),
    ("an empty fragment", "download_source", "https://host/tiny.gguf#"),
    ("a space in the URL", "download_source", "https://host/ti ny.gguf"),
    ("a leading space", "download_source", " https://host/tiny.gguf"),
    ("a line break in the URL", "download_source", "https://host/tiny.gguf\r\nHost: evil"),
    ("a backslash", "download_source", "https://host\\@evil/tiny.gguf"),
    ("an unfinished escape", "download_source", "https://host/tiny%2.gguf"),
    ("an escape in the host", "download_source", "https://ho%73t/tiny.gguf"),
    ("a host that is not ASCII", "download_source", "https://hugg\u0131ngface.co/tiny.gguf"),
    ("a port that is no number", "download_source", "https://host:x/tiny.gguf"),
    ("a port that is none", "download_source", "https://host:0/tiny.gguf"),
    ("a port that is too large", "download_source", "https://host:65536/tiny.gguf"),
    ("a bad bracket", "download_source", "https://[::1/tiny.gguf"),
    ("a zone", "download_source", "https://[fe80::1%25eth0]/tiny.gguf"),
    ("a decimal address", "download_source", "https://2130706433/tiny.gguf"),
    ("a hex address", "download_source", "https://0x7f.0.0.1/tiny.gguf"),
    ("a short address", "download_source", "https://127.1/tiny.gguf"),
    ("an octal address", "download_source", "https://0177.0.0.1/tiny.gguf"),
    ("an empty label", "download_source", "https://a..b/tiny.gguf"),
    ("a long URL", "download_source", "https://host/" + "a" * 2048),
    ("a URL that is an object", "download_source", {"url": "https://host/tiny.gguf"}),
    ("no URL", "download_source", ABSENT),
    ("a digest of 63 digits", "verification_sha256", DIGEST[:-1]),
    ("a digest of 65 digits", "verification_sha256", DIGEST + "0"),
    ("a digest with a space", "verification_sha256", DIGEST + " "),
    ("a digest with a line break", "verification_sha256", DIGEST + "\n"),
    ("a digest with its algorithm", "verification_sha256", "sha256:" + DIGEST),
    ("a digest with a letter beyond f", "verification_sha256", "g" + DIGEST[1:]),
    ("a digest of full-width digits", "verification_sha256", "\uff11" * 64),
    ("an MD5", "verification_sha256", hashlib.md5(b"x", usedforsecurity=False).hexdigest()),
    ("a digest that is a number", "verification_sha256", 10**63),
    ("a digest that is null", "verification_sha256", None),
    ("no digest", "verification_sha256", ABSENT),
    ("no space at all", "required_disk_space_gb", 0),
    ("negative space", "required_disk_space_gb", -1),
    ("minus zero", "required_disk_space_gb", -0.0),
    ("less than a byte", "required_disk_space_gb", 1e-10),
    ("space beyond a petabyte", "required_disk_space_gb", 1_000_001),
    ("space beyond every float", "required_disk_space_gb", 10**400),
    ("space that is true", "required_disk_space_gb", True),
    ("space that is a text", "required_disk_space_gb", "5"),
    ("no space given", "required_disk_space_gb", ABSENT),
    ("a size of zero", "size_bytes", 0),
    ("a negative size", "size_bytes", -5),
    ("a size with a fraction", "size_bytes", 5.5),
    ("a size that is a float", "size_bytes", 5.0),
    ("a size that is true", "size_bytes", True),
    ("a size that is a text", "size_bytes", "5"),
    ("a size that is null", "size_bytes", None),
    ("a size above the space", "size_bytes", 100_000_001),
    ("a huge size", "size_bytes", 10**300),
    ("a CID cut short", "ipfs_fallback_hash", CID_V0[:-1]),
    ("a CID with a path", "ipfs_fallback_hash", f"{CID_V1}/tiny.gguf"),
    ("a CID with its scheme", "ipfs_fallback_hash", f"ipfs://{CID_V1}"),
    ("a CID with a space", "ipfs_fallback_hash", f"{CID_V1} "),
    ("a CID of a template", "ipfs_fallback_hash", "QmYourIpfsHashHere"),
    ("one letter for a CID", "ipfs_fallback_hash", "b"),
    ("a long CID", "ipfs_fallback_hash", "b" + "a" * 2000),
    ("a CID that is null", "ipfs_fallback_hash", None),
    ("no CID", "ipfs_fallback_hash", ABSENT),
]


@pytest.mark.parametrize(("what", "field", "value"), WRONG_FIELDS, ids=[case[0] for case in WRONG_FIELDS])
def test_a_wrong_value_is_refused_by_its_field(what: str, field: str, value: object) -> None:
    error = refused(list_form(other_entry(), entry(**{field: value})))

    assert error.field == f"models[1].{field}", what
    assert refused(plain_form(**{field: value})).field == f"model_config.{field}"
    assert "secret" not in error.diagnostics()


PLACEHOLDERS = [
    "",
    "<sha256 of the file>",
    "0" * 64,
    "f" * 64,
    "X" * 64,
    "xxxxxxxx",
    "YOUR_SHA256_HASH_HERE",
    "your-sha256-here",
    "sha256_hash_here",
    "sha256_hash_of_the_file",
    "REPLACE_WITH_SHA256",
    "REPLACE_ME",
    "CHANGEME",
    "TODO",
    "TBD",
    "placeholder",
    "actual_sha256_hash",
    "${SHA256}",
    "{{ sha256 }}",
    "abc123...",
    "deadbeef" * 8,
    "0123456789abcdef" * 4,
    "0123456789ABCDEF" * 4,
    hashlib.sha256(b"").hexdigest(),
]


@pytest.mark.parametrize("text", PLACEHOLDERS, ids=lambda text: text[:24] or "empty")
def test_a_placeholder_digest_is_refused_by_name_and_says_how_to_fill_it_in(text: str) -> None:
    error = refused(plain_form(verification_sha256=text))

    assert error.field == "model_config.verification_sha256"
    assert any(word in error.found for word in ("placeholder", "which is empty", "empty file"))
    assert "sha256sum" in error.next_step
    assert "r3mes genesis add" in error.next_step


RIGHT_ENTRY = json.dumps(entry())

# What is wrong, the bytes, the field, a word of what was found.
WRONG_FILES: list[tuple[str, bytes, str, str]] = [
    ("an empty file", b"", "", "empty file"),
    ("white space alone", b" \n\t ", "", "empty file"),
    ("a UTF-8 BOM", b"\xef\xbb\xbf" + plain_form(), "", "byte order mark"),
    ("UTF-16", plain_form().decode().encode("utf-16"), "", "byte order mark"),
    ("Latin-1", plain_form(model_name="Tiny").replace(b"Tiny", b"Tin\xfd"), "", "not UTF-8"),
    ("a NUL at the end", plain_form() + b"\x00", "", "syntax error"),
    ("truncated", plain_form()[:-1], "", "syntax error"),
    ("text after the end", plain_form() + b"{}", "", "syntax error"),
    ("a comment", b"// pin\n" + plain_form(), "", "syntax error"),
    ("a trailing comma", plain_form()[:-1] + b",}", "", "syntax error"),
    ("a line break in a string", plain_form().replace(b"Tiny", b"Ti\nny"), "", "syntax error"),
    ("one byte too many", plain_form().ljust(MAX_PLAIN_BYTES + 1), "", "more than 65536 bytes"),
    ("ten megabytes", b" " * 10_000_000, "", "empty file"),
    ("ten megabytes of a plain form", plain_form() + b" " * 10_000_000, "", "more than 65536 bytes"),
    ("200,000 brackets", b"[" * 200_000, "", "nesting too deep"),
    ("as many brackets as fit", b"[" * 65_536, "", "nesting too deep"),
    ("closed brackets as many as fit", b"[" * 32_768 + b"]" * 32_768, "", "nesting too deep"),
    ("deep objects", b'{"a":' * 13_000, "", "nesting too deep"),
    ("a number of 60,000 digits", b'{"models":' + b"9" * 60_000 + b"}", "", "more than 600 characters"),
    ("a list", b"[]", "", "a list"),
    ("a string", b'"genesis"', "", "genesis"),
    ("null", b"null", "", "null"),
    ("a number", b"1e3", "", "1000.0"),
    ("an empty object", b"{}", "", "empty object"),
    ("both forms", b'{"model_config": %b, "models": [%b]}' % ((RIGHT_ENTRY.encode(),) * 2), "", "both"),
    ("an unknown top-level key", plain_form()[:-1] + b', "version": 1}', "version", "unknown key"),
    ("a misspelt form", b'{"model": {}}', "model", "unknown key"),
    ("a config that is a list", b'{"model_config": []}', "model_config", "a list"),
    ("a config that is null", b'{"model_config": null}', "model_config", "null"),
    ("models that is an object", b'{"models": {}}', "models", "an object"),
    ("no models", b'{"models": []}', "models", "empty list"),
    ("a model that is a string", b'{"models": ["Tiny"]}', "models[0]", "Tiny"),
    ("an empty model", b'{"models": [{}]}', "models[0].model_name", "no such key"),
    ("an unknown key", plain_form(sha256=DIGEST), "model_config.sha256", "unknown key"),
    ("a key in another case", plain_form(Model_Name="x"), "model_config.Model_Name", "unknown key"),
    ("a key with a space", plain_form(**{"model_name ": "x"}), "model_config.'model_name '", "unknown key"),
    ("a key of the chain", plain_form(architecture_config="{}"), "model_config.architecture_config", "unknown key"),
    ("NaN", plain_form(required_disk_space_gb=float("nan")), "", "NaN"),
    ("Infinity", plain_form(required_disk_space_gb=float("inf")), "", "Infinity"),
    ("minus Infinity", plain_form(required_disk_space_gb=float("-inf")), "", "-Infinity"),
    (
        "a float beyond every float",
        plain_form().replace(b": 0.1,", b": 1e999,"),
        "model_config.required_disk_space_gb",
        "inf",
    ),
    ("a key twice at the top", b'{"models": [], "models": [%b]}' % RIGHT_ENTRY.encode(), "models", "twice"),
    (
        "the digest twice",
        plain_form().replace(b"}}", b', "verification_sha256": "%b"}}' % OTHER_DIGEST.encode()),
        "model_config.verification_sha256",
        "twice",
    ),
    (
        "the digest twice, once escaped",
        plain_form().replace(b"}}", b', "verification\\u005fsha256": "%b"}}' % OTHER_DIGEST.encode()),
        "model_config.verification_sha256",
        "twice",
    ),
    ("a key twice in the second model", b'{"models": [{"a": 1}, {"b": 1, "b": 1}]}', "models[1].b", "twice"),
    ("a key twice deep down", b'{"models": [{"x": [{"y": 1, "y": 1}]}]}', "models[0].x[0].y", "twice"),
]


@pytest.mark.parametrize(("what", "raw", "field", "found"), WRONG_FILES, ids=[case[0] for case in WRONG_FILES])
def test_a_wrong_file_is_refused(what: str, raw: bytes, field: str, found: str) -> None:
    error = refused(raw)

    assert error.field == field, what
    assert found in error.found


IDENTITIES: list[tuple[str, dict[str, object]]] = [
    ("model_name", {"model_name": "Tiny"}),
    ("file_name", {"file_name": "tiny.gguf"}),
    ("file_name", {"file_name": "TINY.gguf"}),
    ("verification_sha256", {"verification_sha256": DIGEST}),
    ("verification_sha256", {"verification_sha256": DIGEST.upper()}),
]


@pytest.mark.parametrize(("field", "changes"), IDENTITIES, ids=lambda value: str(value)[:40])
def test_two_models_that_share_an_identity_are_refused(field: str, changes: dict[str, object]) -> None:
    error = refused(list_form(entry(), other_entry(**changes)))

    assert error.field == f"models[1].{field}"
    assert "models[0]" in error.found


def test_the_legacy_form_is_refused_with_the_way_to_migrate() -> None:
    error = refused(json.dumps({"model_ipfs": CID_V0}).encode())

    assert error.field == "model_ipfs"
    assert CID_V0 in error.found
    assert f"r3mes genesis migrate {FILE} --file FILE.gguf" in error.next_step


def test_a_misspelt_key_is_met_with_the_right_one() -> None:
    assert "verification_sha256" in refused(plain_form(verification_sha265=DIGEST)).next_step


def test_what_was_found_is_shortened_and_cannot_write_to_the_terminal() -> None:
    error = refused(plain_form(model_name="\x1b]0;evil\x07" + "A" * 10_000))

    assert "\x1b" not in error.diagnostics()
    assert "\x07" not in error.diagnostics()
    assert len(error.found) < 200


def test_the_digest_of_a_genesis_is_over_its_raw_bytes() -> None:
    raw = plain_form()

    first, second = parse_genesis(raw, file=FILE), parse_genesis(raw + b"\n", file=FILE)

    assert first.models == second.models
    assert first.sha256 != second.sha256
