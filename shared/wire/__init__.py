"""The chain's protobuf form of a model: our pins, the registry's JSON and bytes on the wire, into each other.

Invariant: a conversion there and back gives what went in. Needs the extra `wire` (protobuf's runtime): for tools that
talk to the chain. No service imports this: a genesis, a chain's too, is read by `shared.genesis` without it.
Generated from `proto/remes/remes/v1/model.proto` by `make proto`: `model_pb2.py`, `model_pb2.pyi`.
"""

from shared.wire.convert import (
    config_to_pin,
    pin_to_config,
    registry_from_json,
    registry_to_json,
)
from shared.wire.model_pb2 import EncryptionType, ModelConfig, ModelRegistry, ModelType

__all__ = [
    "EncryptionType",
    "ModelConfig",
    "ModelRegistry",
    "ModelType",
    "config_to_pin",
    "pin_to_config",
    "registry_from_json",
    "registry_to_json",
]
