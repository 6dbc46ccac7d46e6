"""Whatever the bytes: a Genesis that follows the rules, or a GenesisError; nothing else comes out of the parser."""

from __future__ import annotations

import contextlib
import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import GenesisError
from shared.genesis import Genesis, parse_genesis
from tests.support.geneses import entry, list_form, plain_form

JSON_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*entry(), "size_bytes"]


def check(raw: bytes) -> None:
    outcome = parse(raw)
    if isinstance(outcome, Genesis):
        check_rules(outcome)
    else:
        assert outcome.diagnostics().replace("\n", "").isascii()


def parse(raw: bytes) -> Genesis | GenesisError:
    try:
        return parse_genesis(raw, file="fuzz")
    except GenesisError as error:
        return error


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
    # A second reading of what is written out gives the same pins.
    again = parse_genesis(list_form(*(pin.to_json() for pin in genesis.models)), file="again")
    assert again.models == genesis.models


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
    raw = bytearray(plain_form(size_bytes=5))
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
    check(bytes(raw))
