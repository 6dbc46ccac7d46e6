"""JSON schemas as grammars: what the library gets wrong is right here, and nothing is fetched."""

from __future__ import annotations

import json
import socket

import pytest

from services.miner.grammar.schema import to_gbnf


def rules(schema: object) -> dict[str, str]:
    lines = to_gbnf(json.dumps(schema)).splitlines()
    return dict(line.split(" ::= ", 1) for line in lines)  # type: ignore[arg-type]


def test_strings_hold_no_raw_control_characters_and_no_pattern_opens_them() -> None:
    assert r"\x00-\x1F" in rules({"type": "string"})["char"]
    assert r"\x00-\x1F" in rules({"type": "string", "pattern": "^.*$"})["dot"]


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("plain", r'"\"plain\""'),
        ('a "quote"', r'"\"a \\\"quote\\\"\""'),
        ("back\\slash", r'"\"back\\\\slash\""'),
        ("line\nbreak", r'"\"line\\nbreak\""'),
        ("grün 😀", r'"\"grün 😀\""'),
        (7, '"7"'),
        (None, '"null"'),
    ],
)
def test_constants_are_written_as_json_writes_them(value: object, literal: str) -> None:
    assert rules({"enum": [value]})["root"] == literal
    assert rules({"const": value})["root"] == literal


@pytest.mark.parametrize("anything", [{}, True])
def test_a_schema_without_demands_allows_any_value(anything: object) -> None:
    wanted = {"object", "array", "string", "number", "boolean", "null"}
    assert wanted <= set(rules(anything))
    assert wanted <= set(rules({"type": "array", "items": anything}))
    assert wanted <= set(rules({"type": "object", "properties": {"x": anything}}))


REFUSED = [
    ("[", "Expecting value"),
    ("7", "type"),
    ('{"type": "wizard"}', "wizard"),
    ('{"$ref": "#/nowhere"}', "nowhere"),
    ('{"$ref": "other.json"}', "only references within"),
    ('{"properties": {"x": {"$ref": "https://127.0.0.1/x"}}}', "only references within"),
    ('{"enum": ["\\ud800"]}', ""),
    ('{"properties": 7}', "type"),
    ('{"type": "string", "pattern": "^*$"}', ""),
    ('{"type": "array", "items": ' * 2000 + "{}" + "}" * 2000, "deeply"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_a_schema_that_cannot_be_converted_has_a_reason_and_is_fetched_from_nowhere(
    schema: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_connection(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", no_connection)
    with pytest.raises(ValueError, match="cannot be converted") as error:
        to_gbnf(schema).encode()
    assert reason in str(error.value)
