"""The chain's ModelRegistry and ModelConfig in protobuf's JSON form, strictly, and which entries are taken.

Pure. Keys are snake_case or camelCase, never both for one field; null is absent, as in protobuf; 64-bit integers are
numbers or strings of digits; enums are names or numbers. `proto/remes/remes/v1/model.proto` is the definition.

| entry                                              | outcome                                              |
|----------------------------------------------------|------------------------------------------------------|
| not active                                         | skipped; whatever else stands in it                  |
| active, encrypted                                  | left out, named                                      |
| active, none of the hybrid fields (10 to 15, 1000) | left out, named                                      |
| active, some of them, but not 10 to 14 all         | refused: it is meant to run here, and cannot         |
| active, 10 to 14 all                               | taken, by the rules of the plain forms               |
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from shared.genesis.fields import FieldRefusedError
from shared.genesis.quote import quote
from shared.genesis.refuser import Refuser, model_pin
from shared.genesis.strict_json import JsonValue, join
from shared.genesis.types import LeftOut, ModelPin

Rule = Callable[[object], JsonValue]

_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 600
_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:Z|([-+])(\d\d):(\d\d))", re.ASCII)
_DAY_HOURS, _HOUR_MINUTES = 24, 60

MODEL_TYPES = {
    "MODEL_TYPE_UNSPECIFIED": 0,
    "MODEL_TYPE_BITNET": 1,
    "MODEL_TYPE_MAMBA": 2,
    "MODEL_TYPE_RWKV": 3,
    "MODEL_TYPE_CUSTOM": 99,
}
ENCRYPTION_TYPES = {
    "ENCRYPTION_TYPE_UNSPECIFIED": 0,
    "ENCRYPTION_TYPE_PLAINTEXT": 1,
    "ENCRYPTION_TYPE_TEE_SGX": 2,
    "ENCRYPTION_TYPE_HOMOMORPHIC": 3,
    "ENCRYPTION_TYPE_ZERO_KNOWLEDGE": 4,
}
_UNSPECIFIED, _PLAINTEXT = 0, 1


@dataclass(frozen=True, slots=True)
class Taken:
    """An active entry that runs here, and where it stands."""

    path: str
    pin: ModelPin


def read_entry(entry: JsonValue, path: str, refuse: Refuser) -> Taken | LeftOut | None:
    """Judge one entry of the registry; None: it is not active. Raises GenesisError."""
    if not isinstance(entry, dict):
        raise refuse.error(path, quote(entry), "an object")
    if not _is_active(entry, path, refuse):
        return None
    registry = checked_entry(entry, path, refuse)
    config_path = join(path, "config")
    config = registry.get("config", {})
    if not isinstance(config, dict):
        raise refuse.error(config_path, quote(config), "an object")
    if reason := _encrypted(config):
        return LeftOut(path, _name(registry, config), reason)
    given = [key for key in REQUIRED if config.get(key) not in _DEFAULTS]
    if not given and not config.get("ipfs_fallback_hash") and "size_bytes" not in config:
        return LeftOut(path, _name(registry, config), "has none of the fields of a hybrid model (model_name, ...)")
    for key in REQUIRED:
        if key not in config:
            raise refuse.error(join(config_path, key), "no such key", _WANTED)
    return Taken(path, model_pin({"ipfs_fallback_hash": "", **config}, config_path, refuse))


def checked_entry(entry: JsonValue, path: str, refuse: Refuser) -> dict[str, JsonValue]:
    """Return an entry with each field that is given, by its snake_case name and in its own type.

    Raises GenesisError for a key that no field has, one that comes twice, and a value of another type.
    """
    if not isinstance(entry, dict):
        raise refuse.error(path, quote(entry), "an object")
    registry = _fields(entry, path, _REGISTRY_FIELDS, refuse)
    config = registry.get("config")
    if isinstance(config, dict):
        registry["config"] = _fields(config, join(path, "config"), _CONFIG_FIELDS, refuse)
    return registry


REQUIRED = ("model_name", "file_name", "download_source", "verification_sha256", "required_disk_space_gb")
_DEFAULTS: tuple[JsonValue, ...] = (None, "", 0)
_WANTED = "this key, since the entry is active and has others of a hybrid model"


def _is_active(entry: dict[str, JsonValue], path: str, refuse: Refuser) -> bool:
    """Judge `is_active` alone: the rest of an entry that is not active is nobody's business."""
    spelled: dict[str, JsonValue] = {key: value for key, value in entry.items() if key in {"is_active", "isActive"}}
    active = _fields(spelled, path, {"is_active": _boolean}, refuse).get("is_active", False)
    return active is True


def _fields(value: dict[str, JsonValue], path: str, rules: dict[str, Rule], refuse: Refuser) -> dict[str, JsonValue]:
    """Return the fields that are given, by their snake_case names and in their own types."""
    names = {spelling: name for name in rules for spelling in (name, camel_case(name))}
    result: dict[str, JsonValue] = {}
    seen: set[str] = set()
    for key, given in value.items():
        name = names.get(key)
        if name is None:
            raise refuse.unknown_key(path, key, rules)
        if name in seen:
            raise refuse.error(join(path, key), f"{name} in both of its spellings", "each field once")
        seen.add(name)
        if given is not None:
            result[name] = refuse.checked(join(path, name), given, rules[name])
    return result


def camel_case(name: str) -> str:
    """Return protobuf's JSON name of a field."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _encrypted(config: dict[str, JsonValue]) -> str:
    """Say why the model counts as encrypted; empty when it does not."""
    kind = config.get("encryption_type", _UNSPECIFIED)
    if kind not in {_UNSPECIFIED, _PLAINTEXT}:
        return (
            f"carries an encrypted model ({next(name for name, number in ENCRYPTION_TYPES.items() if number == kind)})"
        )
    if kind == _UNSPECIFIED and config.get("decryption_key_holder"):
        return "carries an encrypted model (decryption_key_holder is given, and no encryption_type)"
    return ""


def _name(registry: dict[str, JsonValue], config: dict[str, JsonValue]) -> str:
    name = config.get("model_name")
    return quote(name) if name else f"model_id {registry.get('model_id', 0)}"


def _whole_number(lowest: int, highest: int) -> Rule:
    def rule(value: object) -> JsonValue:
        number = value
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            number = int(value)
        if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= highest:
            raise FieldRefusedError(
                quote(value), f"a whole number from {lowest} to {highest}, or a string of its digits"
            )
        return number

    return rule


def _enum(numbers: dict[str, int]) -> Rule:
    def rule(value: object) -> JsonValue:
        number = numbers.get(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or number not in numbers.values():
            raise FieldRefusedError(quote(value), f"one of {', '.join(numbers)}, or its number")
        return number

    return rule


def _double(value: object) -> JsonValue:
    number = value
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
        number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not _is_finite(number):
        raise FieldRefusedError(quote(value), "a finite number, or a string of one")
    return float(number)  # whole numbers beyond 2**53 as the wire form holds them


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int beyond every float
        return False


def _string(value: object) -> JsonValue:
    if not isinstance(value, str):
        raise FieldRefusedError(quote(value), "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldRefusedError(quote(value), "a string without lone surrogates") from error
    return value


def _boolean(value: object) -> JsonValue:
    if not isinstance(value, bool):
        raise FieldRefusedError(quote(value), "true or false")
    return value


def _timestamp(value: object) -> JsonValue:
    found = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if found is None or not isinstance(value, str) or not _is_moment(found):
        raise FieldRefusedError(quote(value), "a time such as 2026-01-31T12:00:00Z (RFC 3339, years 1 to 9999)")
    return value


def _is_moment(found: re.Match[str]) -> bool:
    *numbers, sign, hours, minutes = found.groups(default="0")
    if int(hours) >= _DAY_HOURS or int(minutes) >= _HOUR_MINUTES:
        return False
    offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
    zone = dt.timezone(-offset if sign == "-" else offset)
    year, month, day, hour, minute, second = (int(number) for number in numbers)
    try:
        dt.datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _message(value: object) -> JsonValue:
    if not isinstance(value, dict):
        raise FieldRefusedError(quote(value), "an object")
    return value


_UINT64 = _whole_number(0, 2**64 - 1)
_INT64 = _whole_number(-(2**63), 2**63 - 1)

_REGISTRY_FIELDS: dict[str, Rule] = {
    "model_id": _UINT64,
    "config": _message,
    "approved_at_height": _INT64,
    "approved_by": _UINT64,
    "is_active": _boolean,
    "created_at": _timestamp,
}
_CONFIG_FIELDS: dict[str, Rule] = {
    "model_type": _enum(MODEL_TYPES),
    "model_version": _string,
    "architecture_config": _string,
    "container_hash": _string,
    "container_registry": _string,
    "execution_environment_id": _UINT64,
    "encryption_type": _enum(ENCRYPTION_TYPES),
    "encrypted_weights_ipfs_hash": _string,
    "decryption_key_holder": _string,
    "model_name": _string,
    "file_name": _string,
    "download_source": _string,
    "verification_sha256": _string,
    "required_disk_space_gb": _double,
    "ipfs_fallback_hash": _string,
    "size_bytes": _UINT64,
}
