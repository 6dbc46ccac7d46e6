"""Pins, the registry's JSON and protobuf's messages into each other; the strict rules are those of `shared.genesis`."""

from __future__ import annotations

from google.protobuf import json_format

from shared.errors import GenesisError
from shared.genesis import ModelPin
from shared.genesis.refuser import Refuser
from shared.genesis.registry import Taken, checked_entry, read_entry
from shared.genesis.strict_json import JsonValue
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
    """Return the pin of a message, which must be one of a model that runs here; raises GenesisError."""
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

    Raises GenesisError for a time that has no such form.
    """
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (json_format.SerializeToJsonError, ValueError) as error:
        raise GenesisError(
            file=_FILE, field="", found=str(error), wanted="a message with a JSON form", next_step="correct it"
        ) from error
