"""A chain's genesis: which entries are taken, which are left out and named, and what refuses the whole file."""

from __future__ import annotations

import hashlib
import io
import json

import pytest

from shared.errors import ExitCode, GenesisError
from shared.genesis import MAX_PLAIN_BYTES, Genesis, LeftOut, json_stream, parse_genesis, parse_genesis_stream
from tests.support.geneses import DIGEST, chain_entry, chain_form, entry, list_form, other_entry, plain_form

FILE = "chain.json"
LIST = "app_state.remes.model_registry_list"
OLD_FIELDS = {
    "model_name": "",
    "file_name": "",
    "download_source": "",
    "verification_sha256": "",
    "required_disk_space_gb": 0,
    "ipfs_fallback_hash": "",
}


def parse(raw: bytes) -> Genesis:
    return parse_genesis(raw, file=FILE)


def refused(raw: bytes) -> GenesisError:
    with pytest.raises(GenesisError) as caught:
        parse(raw)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert caught.value.next_step
    return caught.value


def test_active_entries_are_taken_in_their_order_and_mean_what_they_mean_in_the_list_form() -> None:
    raw = chain_form(chain_entry(other_entry(size_bytes="5"), model_id="4"), chain_entry())

    genesis = parse(raw)

    assert genesis.models == parse(list_form(other_entry(size_bytes=5), entry())).models
    assert genesis.sha256 == hashlib.sha256(raw).hexdigest()
    assert genesis.left_out == ()


def test_camel_case_keys_numbers_and_enum_numbers_say_the_same() -> None:
    raw = chain_form(
        {
            "modelId": 18446744073709551615,
            "config": {
                "modelType": 99,
                "encryptionType": 1,
                "executionEnvironmentId": 7,
                "modelName": "Tiny",
                "fileName": "tiny.gguf",
                "downloadSource": entry()["download_source"],
                "verificationSha256": DIGEST,
                "requiredDiskSpaceGb": "1e-1",
                "sizeBytes": "100000000",
            },
            "approvedAtHeight": "-1",
            "isActive": True,
            "createdAt": None,
        }
    ).replace(b"model_registry_list", b"modelRegistryList")

    assert parse(raw).models == parse(plain_form(size_bytes=100_000_000)).models


def test_an_entry_that_is_not_active_may_hold_anything() -> None:
    wild: list[object] = [
        chain_entry({"file_name": "../../etc/passwd", "unknown": [1, {"x": None}]}, is_active=False),
        chain_entry(entry(verification_sha256="0" * 64), is_active=None),
        chain_entry(entry(), is_active=False),
        {},
        {"IS_ACTIVE": True, "config": 7},
    ]

    assert parse(chain_form(*wild, chain_entry())).models == parse(plain_form()).models


LEFT_OUT: list[tuple[str, dict[str, object], str, str]] = [
    ("an enclave's", entry(encryption_type="ENCRYPTION_TYPE_TEE_SGX"), "'Tiny'", "TEE_SGX"),
    ("one by its number", entry(encryption_type=4), "'Tiny'", "ZERO_KNOWLEDGE"),
    ("one without hybrid fields", {"encryption_type": 3, "decryption_key_holder": "x"}, "model_id 9", "HOMOMORPHIC"),
    ("a key without a kind", entry(encryption_type=0, decryption_key_holder="remes1"), "'Tiny'", "key_holder"),
    ("no hybrid field", {"container_hash": "x"}, "model_id 9", "none of the fields"),
    ("hybrid fields with protobuf's defaults", OLD_FIELDS, "model_id 9", "none of the fields"),
]


@pytest.mark.parametrize(("what", "config", "name", "reason"), LEFT_OUT, ids=[case[0] for case in LEFT_OUT])
def test_an_active_entry_that_cannot_run_here_is_left_out_and_named(
    what: str, config: dict[str, object], name: str, reason: str
) -> None:
    genesis = parse(chain_form(chain_entry(config, model_id="9"), chain_entry(other_entry())))

    assert [pin.model_name for pin in genesis.models] == ["Other"], what
    (left_out,) = genesis.left_out
    assert left_out == LeftOut(f"{LIST}[0]", name, left_out.reason)
    assert reason in left_out.reason


@pytest.mark.parametrize(
    "raw",
    [
        chain_form(),
        chain_form(chain_entry(is_active=False)),
        chain_form(chain_entry({"container_hash": "x"})),
        b'{"app_state": {}}',
        b'{"app_state": {"remes": {}}}',
        b'{"app_state": {"remes": {"model_registry_list": null}}}',
    ],
)
def test_a_chain_without_a_model_that_can_run_is_refused_with_a_way_on(raw: bytes) -> None:
    error = refused(raw)

    assert error.field == LIST
    assert "no model that can run here" in error.found
    assert "r3mes genesis add" in error.next_step


def test_models_that_are_left_out_may_share_an_identity_and_those_that_are_taken_may_not() -> None:
    encrypted = chain_entry(entry(encryption_type=2))
    assert len(parse(chain_form(encrypted, encrypted, chain_entry(), chain_entry(is_active=False))).models) == 1

    error = refused(chain_form(encrypted, chain_entry(), chain_entry(other_entry(file_name="TINY.gguf"))))
    assert error.field == f"{LIST}[2].config.file_name"
    assert f"{LIST}[1]" in error.found


# What is wrong, the entry beside a right one, the field below it.
WRONG_ENTRIES: list[tuple[str, object, str]] = [
    ("no object", "Tiny", ""),
    ("a null", None, ""),
    ("active by a text", chain_entry(is_active="true"), ".is_active"),
    ("active by a number", chain_entry(is_active=1), ".is_active"),
    ("active in both spellings", chain_entry(isActive=False), ".isActive"),
    ("an unknown key", chain_entry(owner="x"), ".owner"),
    ("an unknown key in the config", chain_entry(entry(sha256=DIGEST)), ".config.sha256"),
    ("a key in another case", chain_entry(entry(Model_name="x")), ".config.Model_name"),
    ("the digest in both spellings", chain_entry(entry(verificationSha256=DIGEST)), ".config.verificationSha256"),
    ("a config that is a list", chain_entry(config=None) | {"config": []}, ".config"),
    ("an id with a sign", chain_entry(model_id="-1"), ".model_id"),
    ("an id with a plus", chain_entry(model_id="+1"), ".model_id"),
    ("an id with a leading zero", chain_entry(model_id="01"), ".model_id"),
    ("an id with an underscore", chain_entry(model_id="1_0"), ".model_id"),
    ("an id with other digits", chain_entry(model_id="\u0661"), ".model_id"),
    ("an id beyond 64 bits", chain_entry(model_id=str(2**64)), ".model_id"),
    ("a height beyond 63 bits", chain_entry(approved_at_height=2**63), ".approved_at_height"),
    ("an id with a fraction", chain_entry(model_id="1") | {"model_id": 1.0}, ".model_id"),
    ("an unknown kind of model", chain_entry(entry(model_type="MODEL_TYPE_GGUF")), ".config.model_type"),
    ("an unknown encryption", chain_entry(entry(encryption_type=5)), ".config.encryption_type"),
    ("an encryption in lower case", chain_entry(entry(encryption_type="plaintext")), ".config.encryption_type"),
    ("a time without zone", chain_entry(created_at="2026-01-31T12:00:00"), ".created_at"),
    ("a day that is none", chain_entry(created_at="2026-02-30T12:00:00Z"), ".created_at"),
    ("a time before all", chain_entry(created_at="0001-01-01T00:00:00+01:00"), ".created_at"),
    ("ten digits of a second", chain_entry(created_at="2026-01-01T00:00:00.1234567890Z"), ".created_at"),
    ("a number for a text", chain_entry(entry(architecture_config={})), ".config.architecture_config"),
    ("half a letter", chain_entry(entry(model_version="\ud800")), ".config.model_version"),
    ("a digest of zeros", chain_entry(entry(verification_sha256="0" * 64)), ".config.verification_sha256"),
    ("a template's digest", chain_entry(entry(verification_sha256="YOUR_HASH")), ".config.verification_sha256"),
    ("an empty digest among others", chain_entry(entry(verification_sha256="")), ".config.verification_sha256"),
    ("no digest among others", chain_entry({"model_name": "x"}), ".config.file_name"),
    ("a path", chain_entry(entry(file_name="../x.gguf")), ".config.file_name"),
    ("a wrong URL", chain_entry(entry(download_source="ftp://x/y")), ".config.download_source"),
    ("a wrong CID", chain_entry(entry(ipfs_fallback_hash="Qm")), ".config.ipfs_fallback_hash"),
    ("space that is NaN", chain_entry(entry(required_disk_space_gb="NaN")), ".config.required_disk_space_gb"),
    ("space that is a word", chain_entry(entry(required_disk_space_gb="1_0")), ".config.required_disk_space_gb"),
    ("space beyond every float", chain_entry(entry(required_disk_space_gb=10**400)), ".config.required_disk_space_gb"),
    ("a size of zero", chain_entry(entry(size_bytes="0")), ".config.size_bytes"),
    ("a size above the space", chain_entry(entry(size_bytes="100000001")), ".config.size_bytes"),
    ("a wrong type in an encrypted one", chain_entry({"encryption_type": 2, "model_name": 7}), ".config.model_name"),
]


@pytest.mark.parametrize(("what", "wrong", "field"), WRONG_ENTRIES, ids=[case[0] for case in WRONG_ENTRIES])
def test_a_wrong_entry_refuses_the_file(what: str, wrong: object, field: str) -> None:
    assert refused(chain_form(chain_entry(other_entry()), wrong)).field == f"{LIST}[1]{field}", what


GOOD = chain_form(chain_entry())
HEAD, TAIL = GOOD.split(b'"chain_id"')
PADDING = b'{"balances": [' + b'{"a": "b"}, ' * 40_000 + b"1]}"


def with_bank(bank: bytes) -> bytes:
    """Return a right file with these bytes as the state of a module that nobody reads."""
    return GOOD.replace(b'"app_state": {', b'"app_state": {"bank": ' + bank + b",", 1)


@pytest.mark.parametrize(
    ("bank", "found"),
    [
        (b'{"a": 1, "a": [2]}', None),
        (PADDING, None),
        (b'"' + b"x" * 2_000_000 + b'\\n\\u00e9\xc3\xa9"', None),
        (b'{"' + b"x" * 2_000_000 + b'": -0.5e+3}', None),
        (b"[" * 60 + b"1," * 60_000 + b"1" + b"]" * 60, None),
        (b"[" * 63 + b"]" * 63, None),
        (b"[" * 65 + b"]" * 65, "nesting too deep"),
        (b'{"x":' * 65 + b"1" + b"}" * 65, "nesting too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nesting too deep"),
        (b"[" * 65 + b"1," * 60_000 + b"1" + b"]" * 65, "nesting too deep"),
        (b'{"a": {"b": %b}, "a": 1}' % (b"[" * 70 + b"]" * 70), "nesting too deep"),
        (b"NaN", "NaN"),
        (b"[1, -Infinity]", "-Infinity"),
        (PADDING[:-3] + b"Infinity]}", "Infinity"),
        (b"[1,]", "syntax error"),
        (PADDING[:-3] + b"}", "syntax error"),
        (PADDING[:-3] + b",1]}", "syntax error"),
        (b'{"a" 1}', "syntax error"),
        (b'{"a": 1,}', "syntax error"),
        (b"{1: 2}", "syntax error"),
        (b"01", "syntax error"),
        (b"+1", "syntax error"),
        (b".5", "syntax error"),
        (b"'x'", "syntax error"),
        (b'"a\nb"', "syntax error"),
        (b'"\\x41"', "syntax error"),
        (b"True", "syntax error"),
        (b"/* x */ 1", "syntax error"),
        (b"9" * 601, "more than 600 characters"),
        (b"[0." + b"9" * 700 + b"]", "more than 600 characters"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xc3', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_nobody_reads_must_still_be_json(bank: bytes, found: str | None) -> None:
    if found is None:
        assert parse(with_bank(bank)).models == parse(plain_form()).models
    else:
        assert found in refused(with_bank(bank)).found


DUPLICATES: list[tuple[str, bytes, str]] = [
    ("at the top", GOOD.replace(b'"chain_id"', b'"app_state": {}, "chain_id"'), "app_state"),
    ("at the top, escaped", GOOD.replace(b'"chain_id"', b'"app\\u005fstate": {}, "chain_id"'), "app_state"),
    ("at the top, of no account", GOOD.replace(b'"chain_id"', b'"genesis_time": 1, "chain_id"'), "genesis_time"),
    ("the module", with_bank(b'{}, "remes": {}'), "app_state.remes"),
    ("another module", with_bank(b'{}, "auth": {}'), "app_state.auth"),
    ("the registry", GOOD.replace(b'"roles"', b'"model_registry_list": [], "roles"'), LIST),
    ("the registry, the other way", GOOD.replace(b'"roles"', b'"modelRegistryList": [], "roles"'), "modelRegistryList"),
    ("beside the registry", GOOD.replace(b'"roles"', b'"params": 1, "roles"'), "app_state.remes.params"),
    ("in an entry", GOOD.replace(b'"model_id"', b'"is_active": false, "model_id"'), f"{LIST}[0].is_active"),
    ("in a config", GOOD.replace(b'"file_name"', b'"model_name": "x", "file_name"'), f"{LIST}[0].config.model_name"),
    (
        "in an entry that is not active",
        chain_form({"x": [{"y": 1}]}, chain_entry()).replace(b'"y": 1', b'"y": 1, "y": 1'),
        f"{LIST}[0].x[0].y",
    ),
]


@pytest.mark.parametrize(("what", "raw", "field"), DUPLICATES, ids=[case[0] for case in DUPLICATES])
def test_a_key_that_comes_twice_on_the_path_or_in_an_entry_is_refused(what: str, raw: bytes, field: str) -> None:
    error = refused(raw)

    assert error.field.endswith(field), what
    assert "twice" in error.found or "both" in error.found


WRONG_FILES: list[tuple[str, bytes, str]] = [
    ("a state that is text", b'{"app_state": "{}"}', "{}"),
    ("a state that is null", b'{"app_state": null}', "null"),
    ("a module that is a list", b'{"app_state": {"remes": []}}', "a list"),
    ("a registry that is an object", b'{"app_state": {"remes": {"model_registry_list": {}}}}', "an object"),
    ("a plain form beside it", GOOD.replace(b'"chain_id"', b'"models": [], "chain_id"'), "beside app_state"),
    ("the legacy form beside it", GOOD.replace(b'"chain_id"', b'"model_ipfs": "", "chain_id"'), "beside app_state"),
    ("a second value", GOOD + GOOD, "Extra data"),
    ("a NUL at the end", GOOD + b"\x00", "Extra data"),
    ("cut short", GOOD[:-2], "syntax error"),
    ("a byte order mark", b"\xef\xbb\xbf" + GOOD, "byte order mark"),
    ("10,001 entries", chain_form(*[{}] * 10_001), "more than 10000 entries"),
    ("1,001 modules", chain_form(chain_entry(), **{f"m{n}": 1 for n in range(999)}), "more than 1000 keys"),
    ("a long key on the path", with_bank(b'1, "' + b"k" * 70_000 + b'": 1'), "a key of more than 65536 characters"),
    ("an entry beyond a megabyte", chain_form({"x": "y" * 1_100_000}), "more than 1048576 characters"),
    ("a broken entry", GOOD.replace(b'"approved_by": "3"', b'"approved_by": 03'), "syntax error"),
    ("NaN in an entry", GOOD.replace(b'"approved_by": "3"', b'"approved_by": NaN'), "NaN"),
]


@pytest.mark.parametrize(("what", "raw", "found"), WRONG_FILES, ids=[case[0] for case in WRONG_FILES])
def test_a_wrong_file_is_refused(what: str, raw: bytes, found: str) -> None:
    assert found in refused(raw).found, what


def test_neither_size_decides_the_form() -> None:
    small = json.dumps({"app_state": {"remes": {"model_registry_list": [chain_entry()]}}}).encode()
    large = with_bank(PADDING)

    assert len(small) < MAX_PLAIN_BYTES < len(large)
    assert parse(small).models == parse(large).models == parse(plain_form()).models
    assert "more than 65536 bytes" in refused(plain_form().ljust(MAX_PLAIN_BYTES + 1)).found


@pytest.mark.parametrize("key", ["models", "model_config", "model_ipfs"])
def test_a_plain_form_beyond_its_limit_is_read_no_further(key: str) -> None:
    source = io.BytesIO(b'{"%b": [' % key.encode() + b"{}," * 3_000_000 + b"{}]}")

    with pytest.raises(GenesisError) as caught:
        parse_genesis_stream(source, file=FILE)

    assert (caught.value.found, caught.value.wanted) == ("more than 65536 bytes", "at most 65536 bytes")
    assert source.tell() <= MAX_PLAIN_BYTES + json_stream.CHUNK


def test_a_key_of_a_plain_form_behind_a_large_chain_genesis_is_named() -> None:
    raw = with_bank(PADDING)[:-1] + b', "models": []}'

    assert "the key models beside app_state" in refused(raw).found


def test_an_error_names_its_line_and_column_however_far_in() -> None:
    raw = with_bank(b"[\n" + b'"x",\n' * 200_000 + b'"y" "z"]')
    line = raw[: raw.index(b'"z"')].count(b"\n") + 1

    assert f"line {line}, column 5:" in refused(raw).found


class Dribble:
    """A source that gives few bytes at once, so that every token lies across two of them."""

    def __init__(self, raw: bytes, step: int) -> None:
        self._source = io.BytesIO(raw)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._source.read(min(size, self._step))


@pytest.mark.parametrize("step", [1, 7])
def test_where_the_pieces_are_cut_makes_no_difference(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = with_bank('{"é": ["\\u00e9 \\"\\\\", 1.5e-3, true, null, [{}, []]], "é": -0}'.encode())
    monkeypatch.setattr(json_stream, "AHEAD", 8)  # nothing fits: all is walked

    assert parse_genesis_stream(Dribble(raw, step), file=FILE) == parse(raw)
