"""Whatever the bytes: a Genesis that follows the rules, or a GenesisError; nothing else comes out of the parser."""

from __future__ import annotations

import contextlib
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.geneses import chain_entry, chain_form, entry, other_entry, plain_form
from tests.support.genesis_oracle import check

JSON_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*entry(), "size_bytes"]


@given(st.binary(max_size=300))
@example(b"\xff\xfe")
def test_any_bytes(raw: bytes) -> None:
    check(raw)


@given(JSON_VALUES)
def test_any_json(value: object) -> None:
    check(json.dumps(value).encode())


@settings(max_examples=400)
@given(st.sampled_from(KEYS), JSON_VALUES)
def test_any_value_in_any_field(key: str, value: object) -> None:
    check(plain_form(**{key: value}))


@settings(max_examples=400)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model_name": st.text(st.characters(codec="ascii"), max_size=12),
            "file_name": st.text(st.sampled_from("aA0.-_/\\ \n\u0456"), max_size=10).map(lambda stem: f"{stem}.gguf"),
            "download_source": st.from_regex(r"https?://[\w.:@\[\]%-]{0,20}/?[ -~]{0,10}", fullmatch=True),
            "ipfs_fallback_hash": st.from_regex(r"(Qm|b|z|f|k|B|F)[A-Za-z0-9]{0,70}", fullmatch=True),
            "required_disk_space_gb": st.floats() | st.integers(),
            "size_bytes": st.integers(min_value=-1, max_value=2**65),
        },
    )
)
def test_values_that_look_nearly_right(changes: dict[str, object]) -> None:
    check(plain_form(**changes))


@settings(max_examples=400)
@given(st.data())
def test_a_right_file_with_a_few_bytes_changed(data: st.DataObject) -> None:
    check(changed(plain_form(size_bytes=5), data))


def changed(right: bytes, data: st.DataObject) -> bytes:
    """Return the bytes with one to four of them set, cut or inserted."""
    raw = bytearray(right)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        with contextlib.suppress(IndexError):
            match data.draw(st.sampled_from(["set", "cut", "insert"])):
                case "set":
                    raw[position] = data.draw(st.integers(0, 255))
                case "cut":
                    del raw[position]
                case _:
                    raw.insert(position, data.draw(st.sampled_from(b'"{}[],:\\ e9-')))
    return bytes(raw)


CHAIN = chain_form(chain_entry({"encryption_type": 3}), {"is_active": False}, chain_entry(entry(size_bytes="5")))
SMALL_CHAIN = json.dumps({"app_state": {"remes": {"model_registry_list": [chain_entry()]}}}).encode()
CHAIN_CONFIG_KEYS = [
    *KEYS,
    *(chain_entry()["config"]),  # type: ignore[misc]
    "fileName",
    "encryptionType",
    "decryption_key_holder",
]


@settings(max_examples=400)
@given(st.data())
def test_a_right_chain_with_a_few_bytes_changed(data: st.DataObject) -> None:
    check(changed(data.draw(st.sampled_from([CHAIN, SMALL_CHAIN])), data))


@settings(max_examples=400)
@given(st.sampled_from(CHAIN_CONFIG_KEYS), JSON_VALUES)
def test_any_value_in_any_field_of_a_config(key: str, value: object) -> None:
    check(chain_form(chain_entry({**entry(), key: value}), chain_entry(other_entry())))


@settings(max_examples=200)
@given(st.sampled_from([*chain_entry(), "isActive", "modelId"]), JSON_VALUES)
def test_any_value_in_any_field_of_an_entry(key: str, value: object) -> None:
    check(chain_form({**chain_entry(), key: value}, chain_entry(other_entry())))


@settings(max_examples=200)
@given(JSON_VALUES, JSON_VALUES)
def test_any_json_in_the_registry_and_beside_it(entry_value: object, module: object) -> None:
    check(chain_form(entry_value, chain_entry(), other=module))


@given(st.sampled_from(["app_state", "remes", "model_registry_list"]), JSON_VALUES)
def test_any_json_on_the_path(key: str, value: object) -> None:
    chain: dict[str, object] = {"model_registry_list": [chain_entry()]}
    for outer in ("model_registry_list", "remes", "app_state"):
        chain = {outer: value if outer == key else chain if outer != "model_registry_list" else [chain_entry()]}
    check(json.dumps(chain).encode())
