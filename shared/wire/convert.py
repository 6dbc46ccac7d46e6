"""Pins, the registry's JSON and protobuf's messages into each other; the strict rules are those of `shared.genesis`.

Invariant: nothing is dropped in silence. A message with a field that this version does not know, in whatever depth, is
refused: its JSON form would be without it. A pin is what runs here, and has no place for the chain's other fields.
"""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from shared.errors import GenesisError
from shared.genesis import ModelPin
from shared.genesis.refuser import Refuser
from shared.genesis.registry import Taken, checked_entry, read_entry
from shared.genesis.strict_json import JsonValue, join
from shared.wire.model_pb2 import EncryptionType, ModelConfig, ModelRegistry

_FILE = "a message"


def pin_to_config(pin: ModelPin) -> ModelConfig:
    """Return the message of a model that runs here: its hybrid fields, and that it is not encrypted."""
    return ModelConfig(
        encryption_type=EncryptionType.ENCRYPTION_TYPE_PLAINTEXT,
        model_name=pin.model_name,
        file_name=pin.file_name,
        download_source=pin.download_source,
        verification_sha256=pin.sha256,
        required_disk_space_gb=pin.required_disk_space_gb,
        ipfs_fallback_hash=pin.ipfs_fallback_hash,
        size_bytes=pin.size_bytes,
    )


def config_to_pin(config: ModelConfig) -> ModelPin:
    """Return the pin of a message, which must be one of a model that runs here; raises GenesisError.

    The chain's own fields (1 to 9, such as `model_version`) are checked, and are no part of a pin.
    """
    refuse = Refuser(_FILE)
    entry = registry_to_json(ModelRegistry(config=config, is_active=True))
    match read_entry(entry, "", refuse):
        case Taken(pin=pin):
            return pin
        case other:
            raise refuse.error("config", other.reason if other else "no model", "a model that runs here")


def registry_from_json(entry: JsonValue) -> ModelRegistry:
    """Return the message of an entry in protobuf's JSON form, read as strictly as one in a genesis.

    Raises GenesisError.
    """
    message = ModelRegistry()
    json_format.ParseDict(checked_entry(entry, "", Refuser(_FILE)), message)
    return message


def registry_to_json(message: ModelRegistry) -> dict[str, JsonValue]:
    """Return protobuf's JSON form: snake_case keys, 64-bit integers as strings, what has no value left out.

    Raises GenesisError for a time that has no such form, and for a field of a number that this version does not know.
    """
    _refuse_unknown(message, "")
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (json_format.SerializeToJsonError, ValueError) as error:
        raise GenesisError(
            file=_FILE, field="", found=str(error), wanted="a message with a JSON form", next_step="correct it"
        ) from error


def _refuse_unknown(message: Message, path: str) -> None:
    """Raise GenesisError for a field without a name, here or in what the message contains."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise GenesisError(
            file=_FILE,
            field=path,
            found=f"a field of the unknown number {unknown[0].field_number}",
            wanted="only the fields of proto/remes/remes/v1/model.proto",
            next_step="use a version that knows this field; converting would lose it",
        )
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            _refuse_unknown(value, join(path, descriptor.name))
