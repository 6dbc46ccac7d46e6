"""JSON without its freedoms: UTF-8 without BOM, no duplicate keys, no NaN or Infinity, bounded size and depth.

`load(raw, limit)` returns plain Python values or raises `JsonRefusedError`, whatever the bytes are.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

from shared.genesis.quote import quote

BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_NUMBER = 600  # characters; below any limit of digits that Python can be told to have for an int
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
    if raw.startswith(BYTE_ORDER_MARKS):
        raise JsonRefusedError("a byte order mark", "UTF-8 without BOM")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonRefusedError(f"bytes that are not UTF-8 at offset {error.start}", "UTF-8") from error
    try:
        value: JsonValue = _DECODER.decode(text)
        _refuse_duplicates(value, "")
    except json.JSONDecodeError as error:
        raise syntax_error(error.lineno, error.colno, error.msg) from error
    except RecursionError as error:
        raise JsonRefusedError("nesting too deep to read", "the few levels that a genesis has") from error
    return value


def decode(text: str, position: int, *, path: str) -> tuple[JsonValue, int]:
    """Return the value that begins at `position` and where it ends; `path` is where it stands in the file.

    Raises JSONDecodeError for a syntax error, else JsonRefusedError.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
        _refuse_duplicates(value, path)
    except RecursionError as error:
        raise JsonRefusedError("nesting too deep to read", "the few levels that a genesis has", field=path) from error
    return value, end


def syntax_error(line: int, column: int, message: str) -> JsonRefusedError:
    """Return the error of bytes that are no JSON."""
    return JsonRefusedError(f"a syntax error at line {line}, column {column}: {message}", "JSON")


def too_long_number() -> JsonRefusedError:
    """Return the error of a number with more characters than any that means something."""
    return JsonRefusedError(f"a number of more than {MAX_NUMBER} characters", "JSON numbers of a sensible length")


def integer(text: str) -> int:
    """Read an integer of bounded length."""
    if len(text) > MAX_NUMBER:
        raise too_long_number()
    return int(text)


def floating(text: str) -> float:
    """Read a number with a point or exponent, of bounded length; it may be infinite."""
    if len(text) > MAX_NUMBER:
        raise too_long_number()
    return float(text)


def refuse_constant(name: str) -> JsonValue:
    """Refuse NaN, Infinity and -Infinity."""
    raise JsonRefusedError(name, "a finite number")


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


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=refuse_constant, parse_int=integer, parse_float=floating
)


def _refuse_duplicates(value: JsonValue, at: str) -> None:
    for path, node in _walk(value, at):
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
