"""What must hold of the genesis parser whatever the bytes are; hypothesis and atheris both hold it to this.

A GenesisError or a Genesis, nothing else; a Genesis follows the rules on which others rely, has the same values as
`json.loads` gives, and no second meaning: written out again, in the list form and as a chain's, it reads the same. Nor
does it matter how large the window is through which it was read.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator

from shared.errors import GenesisError
from shared.genesis import MAX_PLAIN_BYTES, Genesis, json_stream, parse_genesis, parse_genesis_stream
from tests.support.geneses import chain_form, list_form


def parse(raw: bytes) -> Genesis | GenesisError:
    try:
        return parse_genesis(raw, file="fuzz")
    except GenesisError as error:
        return error


def check(raw: bytes) -> None:
    """Raise AssertionError, or whatever the parser should not, when a property does not hold."""
    outcome = parse(raw)
    with small_window():
        assert_alike(outcome, parse(raw))
    if isinstance(outcome, Genesis):
        check_rules(outcome)
        check_values(outcome, raw)
        check_written_out_again(outcome)
    else:
        assert outcome.diagnostics().replace("\n", "").isascii()


@contextlib.contextmanager
def small_window() -> Iterator[None]:
    """Let nothing fit into the window, so that all is walked and every token lies across pieces."""
    before = json_stream.AHEAD, json_stream.CHUNK
    json_stream.AHEAD, json_stream.CHUNK = 2, 3
    try:
        yield
    finally:
        json_stream.AHEAD, json_stream.CHUNK = before


def assert_alike(one: Genesis | GenesisError, other: Genesis | GenesisError) -> None:
    assert type(one) is type(other), (one, other)
    assert not isinstance(one, Genesis) or one == other


def check_rules(genesis: Genesis) -> None:
    """Repeat the rules on which others rely, in other words than the parser's."""
    assert genesis.models
    for pin in genesis.models:
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)
        assert pin.file_name.isascii()
        assert pin.file_name.isprintable()
        assert pin.file_name.endswith(".gguf")
        assert not set(pin.file_name) & set("/\\\0")
        assert not pin.file_name.startswith((".", "-"))
        assert pin.download_source.lower().startswith(("http://", "https://"))
        assert not set(pin.download_source) & set(" #\\\r\n\t")
        assert pin.model_name.isascii()
        assert pin.model_name.isprintable()
        assert 1 <= (pin.size_bytes or 1) <= pin.required_bytes
    for values in zip(*((pin.model_name, pin.file_name.casefold(), pin.sha256) for pin in genesis.models), strict=True):
        assert len(values) == len(set(values))
    for left_out in genesis.left_out:
        assert (left_out.name + left_out.reason).isascii()
        assert (left_out.name + left_out.reason).isprintable()


def check_values(genesis: Genesis, raw: bytes) -> None:
    """Read the same bytes with `json.loads`, loosely, and compare."""
    configs = list(loose_configs(json.loads(raw)))
    assert len(configs) == len(genesis.models)
    for pin, config in zip(genesis.models, configs, strict=True):
        assert pin.model_name == config["model_name"]
        assert pin.file_name == config["file_name"]
        assert pin.download_source == config["download_source"]
        assert pin.sha256 == str(config["verification_sha256"]).lower()
        assert pin.required_disk_space_gb == float(str(config["required_disk_space_gb"]))
        assert pin.ipfs_fallback_hash == (config.get("ipfs_fallback_hash") or "")
        size = config.get("size_bytes")
        assert pin.size_bytes == (None if size is None else int(str(size)))


def loose_configs(value: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield the config of each model that is meant to run, by its snake_case names."""
    match value:
        case {"app_state": {"remes": {"model_registry_list": list(entries)} | {"modelRegistryList": list(entries)}}}:
            for each in (snake_case(entry) for entry in entries):
                config = snake_case(each.get("config") or {})
                kind = config.get("encryption_type") or 0
                plain = kind in {1, "ENCRYPTION_TYPE_PLAINTEXT"}
                unsaid = kind in {0, "ENCRYPTION_TYPE_UNSPECIFIED"} and not config.get("decryption_key_holder")
                if each.get("is_active") is True and (plain or unsaid) and config.get("file_name"):
                    yield config
        case {"model_config": dict(config)}:
            yield config
        case {"models": list(configs)}:
            yield from configs


def snake_case(value: dict[str, object]) -> dict[str, object]:
    return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): each for key, each in value.items()}


def check_written_out_again(genesis: Genesis) -> None:
    wires = [pin.to_json() for pin in genesis.models]
    listed = list_form(*wires)
    if len(listed) <= MAX_PLAIN_BYTES:
        assert parse_genesis(listed, file="again").models == genesis.models
    chain = chain_form(*({"config": wire, "isActive": True} for wire in wires))
    assert parse_genesis_stream(io.BytesIO(chain), file="again").models == genesis.models
