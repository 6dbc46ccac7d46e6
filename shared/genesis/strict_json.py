"""JSON without its freedoms: UTF-8 without BOM, no duplicate keys, no NaN or Infinity, bounded size and depth.

`load(raw, limit)` returns plain Python values or raises `JsonRefusedError`, whatever the bytes are.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

from shared.genesis.quote import quote

_SHOWN_KEY = 64

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


class JsonRefusedError(Exception):
    """The bytes are not JSON of the strict kind; `field` is a path such as `models[1].file_name`, or empty."""

    def __init__(self, found: str, wanted: str, *, field: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.wanted = wanted
        self.field = field


class _Object(dict[str, JsonValue]):
    """An object as it stood in the text; remembers a key that came twice until its path is known."""

    duplicate: str | None = None


def load(raw: bytes, *, limit: int) -> JsonValue:
    """Parse `raw`, at most `limit` bytes; raises JsonRefusedError."""
    if len(raw) > limit:
        raise JsonRefusedError(f"more than {limit} bytes", f"at most {limit} bytes")
    if not raw.strip():
        raise JsonRefusedError("an empty file", "JSON")
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise JsonRefusedError("a byte order mark", "UTF-8 without BOM")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonRefusedError(f"bytes that are not UTF-8 at offset {error.start}", "UTF-8") from error
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
        _refuse_duplicates(value)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JsonRefusedError(f"a syntax error at {where}: {error.msg}", "JSON") from error
    except RecursionError as error:
        raise JsonRefusedError("nesting too deep to read", "the few levels that a genesis has") from error
    except ValueError as error:
        # json turns digits into int without a bound of its own; Python's own limit speaks up here.
        raise JsonRefusedError("a number with thousands of digits", "JSON numbers of a sensible length") from error
    return value


def _pairs(pairs: list[tuple[str, JsonValue]]) -> _Object:
    result = _Object(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                result.duplicate = key
                break
            seen.add(key)
    return result


def _constant(name: str) -> JsonValue:
    raise JsonRefusedError(name, "a finite number")


def _refuse_duplicates(value: JsonValue) -> None:
    for path, node in _walk(value, ""):
        if node.duplicate is not None:
            raise JsonRefusedError(
                f"the key {quote(node.duplicate)} twice", "each key once", field=join(path, node.duplicate)
            )


def _walk(value: JsonValue, path: str) -> Iterator[tuple[str, _Object]]:
    if isinstance(value, _Object):
        yield path, value
        for key, child in value.items():
            yield from _walk(child, join(path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _walk(child, f"{path}[{index}]")


def join(path: str, key: str) -> str:
    """Append `key` to a path for a person; keys that are not plain names are quoted."""
    name = key if key.isascii() and key.replace("_", "a").isalnum() and len(key) <= _SHOWN_KEY else quote(key)
    return f"{path}.{name}" if path else name
