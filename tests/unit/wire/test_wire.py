"""The chain's protobuf form: numbers as the chain has them, and nothing lost between pins, JSON and bytes."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import GenesisError
from shared.genesis import ModelPin, parse_genesis, registry
from shared.genesis.placeholders import placeholder_digest
from shared.wire import (
    EncryptionType,
    ModelConfig,
    ModelRegistry,
    ModelType,
    config_to_pin,
    pin_to_config,
    registry_from_json,
    registry_to_json,
)
from tests.support.geneses import chain_entry, chain_form, entry, plain_form

ROOT = Path(__file__).resolve().parents[3]
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"

# The table of the chain that exists; nothing in it may ever change.
CONFIG_FIELDS = {
    "model_type": (1, "enum"),
    "model_version": (2, "string"),
    "architecture_config": (3, "string"),
    "container_hash": (4, "string"),
    "container_registry": (5, "string"),
    "execution_environment_id": (6, "uint64"),
    "encryption_type": (7, "enum"),
    "encrypted_weights_ipfs_hash": (8, "string"),
    "decryption_key_holder": (9, "string"),
    "model_name": (10, "string"),
    "file_name": (11, "string"),
    "download_source": (12, "string"),
    "verification_sha256": (13, "string"),
    "required_disk_space_gb": (14, "double"),
    "ipfs_fallback_hash": (15, "string"),
    "size_bytes": (1000, "uint64"),
}
REGISTRY_FIELDS = {
    "model_id": (1, "uint64"),
    "config": (2, "message"),
    "approved_at_height": (3, "int64"),
    "approved_by": (4, "uint64"),
    "is_active": (5, "bool"),
    "created_at": (6, "message"),
}
TYPES = {1: "double", 3: "int64", 4: "uint64", 8: "bool", 9: "string", 11: "message", 14: "enum"}


@pytest.mark.parametrize(
    ("message", "table", "rules"),
    [
        (ModelConfig, CONFIG_FIELDS, registry._CONFIG_FIELDS),
        (ModelRegistry, REGISTRY_FIELDS, registry._REGISTRY_FIELDS),
    ],
)
def test_names_numbers_and_types_are_the_chains(
    message: type[ModelConfig | ModelRegistry],
    table: dict[str, tuple[int, str]],
    rules: dict[str, object],
) -> None:
    fields = message.DESCRIPTOR.fields

    assert {field.name: (field.number, TYPES[field.type]) for field in fields} == table
    assert message.DESCRIPTOR.full_name == f"remes.remes.v1.{message.__name__}"
    assert rules.keys() == table.keys()
    assert {field.json_name for field in fields} == {registry.camel_case(name) for name in table}
    assert [field.name for field in fields if field.has_presence and field.message_type is None] in ([], ["size_bytes"])


def test_enums_are_the_chains() -> None:
    assert dict(ModelType.items()) == registry.MODEL_TYPES
    assert dict(EncryptionType.items()) == registry.ENCRYPTION_TYPES
    assert sorted(registry.MODEL_TYPES.values()) == [0, 1, 2, 3, 99]
    assert sorted(registry.ENCRYPTION_TYPES.values()) == [0, 1, 2, 3, 4]


def test_bytes_of_the_chain_are_read_and_written_alike() -> None:
    raw = bytes.fromhex("52016d6a01647100000000000012 40".replace(" ", "") + "c03e05")
    config = ModelConfig(model_name="m", verification_sha256="d", required_disk_space_gb=4.5, size_bytes=5)

    assert ModelConfig.FromString(raw) == config
    assert config.SerializeToString(deterministic=True) == raw
    assert not ModelConfig().HasField("size_bytes")
    with pytest.raises(DecodeError):
        ModelConfig.FromString(raw[:-1])


def test_generating_again_gives_what_is_committed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)

    for name in ("model_pb2.py", "model_pb2.pyi"):
        assert (tmp_path / name).read_text() == (ROOT / "shared" / "wire" / name).read_text(), "next: make proto"


def test_a_genesis_is_read_without_protobuf() -> None:
    code = "import sys, shared.acceptance, shared.store.trust; print(any(n.startswith('google') for n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


PINS = st.builds(
    ModelPin,
    model_name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+()-]{0,100}", fullmatch=True),
    file_name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _]{0,100}\.gguf", fullmatch=True),
    download_source=st.from_regex(r"https://[a-z]{1,9}\.[a-z]{2,3}/[a-z0-9]{0,9}", fullmatch=True),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex).filter(lambda text: not placeholder_digest(text)),
    required_disk_space_gb=st.floats(min_value=1.0, max_value=1e6),
    ipfs_fallback_hash=st.sampled_from(["", CID]),
    size_bytes=st.none() | st.integers(1, 10**9),
)


@given(PINS, st.integers(0, 2**64 - 1))
def test_a_pin_survives_every_way_there_and_back(pin: ModelPin, model_id: int) -> None:
    config = pin_to_config(pin)
    assert config_to_pin(config) == pin
    assert config_to_pin(ModelConfig.FromString(config.SerializeToString())) == pin

    message = ModelRegistry(model_id=model_id, config=config, is_active=True)
    genesis = parse_genesis(chain_form(registry_to_json(message)), file="chain")
    assert genesis.models == (pin,)
    camel = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    assert parse_genesis(chain_form(camel), file="chain").models == (pin,)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UINT64 = st.integers(0, 2**64 - 1)
MESSAGES = st.builds(
    ModelRegistry,
    model_id=UINT64,
    config=st.builds(
        ModelConfig,
        model_type=st.sampled_from(list(ModelType.values())),
        model_version=TEXTS,
        architecture_config=TEXTS,
        execution_environment_id=UINT64,
        encryption_type=st.sampled_from(list(EncryptionType.values())),
        decryption_key_holder=TEXTS,
        model_name=TEXTS,
        file_name=TEXTS,
        verification_sha256=TEXTS,
        required_disk_space_gb=st.floats(allow_nan=False, allow_infinity=False),
        size_bytes=st.none() | UINT64,
    ),
    approved_at_height=st.integers(-(2**63), 2**63 - 1),
    approved_by=UINT64,
    is_active=st.booleans(),
    created_at=st.none() | st.datetimes(),
)


@settings(max_examples=300)
@given(MESSAGES)
def test_a_message_survives_its_json_form_and_its_bytes(message: ModelRegistry) -> None:
    assert registry_from_json(registry_to_json(message)) == message
    camel = json_format.MessageToDict(message, always_print_fields_with_no_presence=True, use_integers_for_enums=True)
    assert registry_from_json(json.loads(json.dumps(camel))) == message
    assert ModelRegistry.FromString(message.SerializeToString()) == message


NUMBERS = st.sampled_from(
    ["0", "-0", "1", "-1", "01", "1.0", "1e3", " 1", "1_0", "\u0661", "", str(2**63), str(2**64), "0x1", "+1", "NaN"]
)
TIMES = st.from_regex(
    r"(0000|0001|1969|2024|2025|9999)-(02|12)-(00|01|29|31)T(00|23|24):(00|59|60):(00|59|60|61)"
    r"(\.\d{1,10})?(Z|z|[+-](00|01|23|24):(00|59|60))?",
    fullmatch=True,
).filter(str.isascii)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.sampled_from([0, 1, 2, 3, 4, 5, 99, 1.0, 1.5])
    | NUMBERS
    | TIMES
    | st.text(max_size=4)
    | st.sampled_from([*registry.MODEL_TYPES, *registry.ENCRYPTION_TYPES, "PLAINTEXT", "model_type_bitnet"])
    | st.just([])
    | st.just({})
)
CONFIG_KEYS = [spelling for name in CONFIG_FIELDS for spelling in (name, registry.camel_case(name))]
ENTRY_KEYS = [spelling for name in REGISTRY_FIELDS for spelling in (name, registry.camel_case(name))]
ENTRIES = st.dictionaries(st.sampled_from([*ENTRY_KEYS, "x"]), VALUES, max_size=3) | st.builds(
    chain_entry,
    st.dictionaries(st.sampled_from([*CONFIG_KEYS, "Model_Name"]), VALUES, max_size=3),
)


@settings(max_examples=2000)
@example(chain_entry({"required_disk_space_gb": 2**53 + 1}))  # no double, and read as the one next to it
@given(ENTRIES)
def test_what_we_accept_protobufs_own_json_accepts_and_reads_alike(given_entry: dict[str, object]) -> None:
    try:
        ours = registry.checked_entry(given_entry, "", registry.Refuser("x"))  # type: ignore[arg-type]
    except GenesisError:
        return  # stricter than protobuf on purpose
    theirs = json_format.ParseDict(given_entry, ModelRegistry())
    for fields, message in ((ours, theirs), (ours.get("config", {}), theirs.config)):
        assert isinstance(fields, dict)
        for field in message.DESCRIPTOR.fields:
            if field.message_type is None:
                assert getattr(message, field.name) == fields.get(field.name, field.default_value), field.name
    assert theirs.HasField("created_at") == ("created_at" in ours)


@pytest.mark.parametrize("changes", [{}, {"size_bytes": "7"}, {"ipfs_fallback_hash": CID, "required_disk_space_gb": 2}])
def test_what_protobuf_writes_we_accept(changes: dict[str, object]) -> None:
    given_entry = chain_entry(entry(**changes))
    theirs = json_format.ParseDict(given_entry, ModelRegistry())

    assert registry_from_json(given_entry) == theirs  # type: ignore[arg-type]
    assert theirs.created_at.nanos == 500_000_000


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(model_name="x"),
        ModelConfig(encryption_type=EncryptionType.Value("ENCRYPTION_TYPE_TEE_SGX")),
    ],
)
def test_a_message_of_no_model_that_runs_here_is_no_pin(config: ModelConfig) -> None:
    with pytest.raises(GenesisError):
        config_to_pin(config)


# A string of the number 2000, a varint of 20, a group of 30: what a later version of the chain might send.
UNKNOWN = [bytes.fromhex("827d 02 6869"), bytes.fromhex("a001 07"), bytes.fromhex("f301 f401")]
CARRIERS = [
    ("the entry", "", lambda message: message),
    ("its config", "config", lambda message: message.config),
    ("its time", "created_at", lambda message: message.created_at),
]
CONFIG = pin_to_config(parse_genesis(plain_form(), file="genesis").models[0])


@pytest.mark.parametrize("unknown", UNKNOWN, ids=["a string", "a number", "a group"])
@pytest.mark.parametrize(("where", "field", "carrier"), CARRIERS, ids=[case[0] for case in CARRIERS])
def test_a_field_that_nobody_here_knows_is_refused_and_not_dropped(
    where: str, field: str, carrier: Callable[[ModelRegistry], Message], unknown: bytes
) -> None:
    message = ModelRegistry(config=CONFIG, is_active=True, created_at=dt.datetime(2026, 1, 31, tzinfo=dt.UTC))
    assert registry_to_json(message)
    carrier(message).MergeFromString(unknown)

    with pytest.raises(GenesisError, match="a field of the unknown number") as refused:
        registry_to_json(ModelRegistry.FromString(message.SerializeToString()))

    assert refused.value.field == field, where


@pytest.mark.parametrize("unknown", UNKNOWN, ids=["a string", "a number", "a group"])
def test_a_pin_is_not_made_of_a_message_with_more_than_we_know(unknown: bytes) -> None:
    raw = CONFIG.SerializeToString()
    assert config_to_pin(ModelConfig.FromString(raw))

    with pytest.raises(GenesisError, match="a field of the unknown number") as refused:
        config_to_pin(ModelConfig.FromString(raw + unknown))

    assert refused.value.field == "config"
