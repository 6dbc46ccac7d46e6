"""Strict JSON from a file of hundreds of megabytes in a few megabytes of memory: walk some values, skip the others.

A window of text moves over the file. A value that is not wanted is given to json's own decoder where it fits into the
window, and walked into where it does not; so what is accepted is what `json.loads` accepts, less NaN and Infinity, a
byte order mark, and what exceeds the bounds below. Depth is counted, never left to the interpreter's recursion limit:
all processes must read one file alike. The SHA-256 is over every byte that was read.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from shared.genesis.quote import quote
from shared.genesis.strict_json import (
    BYTE_ORDER_MARKS,
    MAX_NUMBER,
    JsonRefusedError,
    JsonValue,
    decode,
    floating,
    integer,
    join,
    refuse_constant,
    syntax_error,
    too_long_number,
)

MAX_DEPTH = 64  # levels; a chain's genesis has about twenty
MAX_KEYS = 1000  # keys of an object that is walked; a chain has some forty modules
MAX_KEY = 64 * 1024  # characters of such a key
MAX_TAKEN = 1024 * 1024  # characters of a value that is taken whole
CHUNK = 256 * 1024  # bytes read at once
AHEAD = 64 * 1024  # characters that a value may have to be decoded in one go
# The beginning of a value that did not fit is walked: else nested ones would be decoded again level by level.
_STEP = AHEAD // 4

_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_PLAIN_CHARACTERS = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_CONSTANT = re.compile(r"NaN|-?Infinity")
_LONGEST_ESCAPE = 6

T = TypeVar("T")

_SKIPPING = json.JSONDecoder(parse_constant=refuse_constant, parse_int=integer, parse_float=floating)


class Source(Protocol):
    """What bytes are read from; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""


class JsonStream:
    """The text of a file and how far it was read; every method raises JsonRefusedError for what is not strict JSON."""

    def __init__(self, source: Source, *, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._digest = hashlib.sha256()
        self._text = ""
        self._position = 0
        self._at_end = False
        self._lines_before = 0
        self._column_before = 0
        self._dropped = 0
        self._walk_until = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        """The digest, in hex, of the bytes read so far: of the whole file after `end`."""
        return self._digest.hexdigest()

    def restrict(self, limit: int) -> None:
        """From now on refuse more than `limit` bytes, those that were read among them."""
        self._limit = limit
        self._check_size()

    def peek(self) -> str:
        """Return the next character that is not white space, without passing it; empty at the end of the file."""
        while True:
            self._position = self._match_end(_SPACE)
            if self._position < len(self._text) or self._at_end:
                return self._text[self._position : self._position + 1]
            self._fill(1)

    def keys(self, path: str) -> Iterator[str]:
        """Walk an object: yield each key, with the stream before its value, which the caller must take or skip."""
        seen: set[str] = set()
        for key in self._members(self._key):
            if key in seen:
                raise JsonRefusedError(f"the key {quote(key)} twice", "each key once", field=join(path, key))
            if len(seen) == MAX_KEYS:
                raise JsonRefusedError(f"more than {MAX_KEYS} keys", "an object of a chain's genesis", field=path)
            seen.add(key)
            yield key

    def elements(self) -> Iterator[int]:
        """Walk a list: yield each index, with the stream before its element, which the caller must take or skip."""
        self._pass("[")
        if self.peek() == "]":
            self._position += 1
            return
        index = 0
        while True:
            yield index
            index += 1
            if self._pass(",]") == "]":
                return

    def take(self, path: str) -> JsonValue:
        """Return the next value, without duplicate keys anywhere in it, of at most MAX_TAKEN characters."""
        self.peek()
        self._fill(MAX_TAKEN)
        start, was_at_end = self._position, self._at_end
        try:
            value, end = decode(self._text, start, path=path)
        except json.JSONDecodeError as error:
            if was_at_end:
                raise self._syntax_error(error.pos, error.msg) from error
            self.skip()  # says where it is broken
            raise _too_long(path) from error
        if end - start > MAX_TAKEN:
            raise _too_long(path)
        _check_depth(value, MAX_DEPTH)
        self._position = end
        return value

    def skip(self, depth: int = 0) -> None:
        """Pass the next value, which must be JSON; keys may come twice in it."""
        match self.peek():
            case '"':
                self._skip_string()
            case "{" | "[":
                if not self._skip_at_once(depth):
                    self._skip_by_walking(depth)
            case _:
                self._skip_scalar()

    def end(self) -> None:
        """Check that nothing but white space follows."""
        if self.peek():
            raise self._syntax_error(self._position, "Extra data")

    def _skip_at_once(self, depth: int) -> bool:
        """Pass a value that fits into the window and is not too deep; tell whether that is sure."""
        if self._is_walking:
            return False
        self._fill(AHEAD)
        try:
            _, end = _SKIPPING.raw_decode(self._text, self._position)
        except (json.JSONDecodeError, RecursionError):
            end = len(self._text)  # broken, too deep, or longer than the window: walking finds out which
        else:
            if self._is_flat(self._position, end, depth):
                self._position = end
                return True
        self._walk_until = self._dropped + min(end, self._position + _STEP)
        return False

    def _skip_elements(self, depth: int) -> None:
        """Pass those of a list's next elements, each with its comma, that the window holds whole and surely flat."""
        self.peek()
        text, position = self._text, self._position
        while not self._is_walking:
            try:
                _, end = _SKIPPING.raw_decode(text, position)
            except (json.JSONDecodeError, RecursionError):
                return
            comma = _COMMA.match(text, end)
            if comma is None or not self._is_flat(position, end, depth):
                return
            self._position = position = comma.end()

    @property
    def _is_walking(self) -> bool:
        return self._dropped + self._position < self._walk_until

    def _is_flat(self, start: int, end: int, depth: int) -> bool:
        """Whether what stands there has too few brackets to be too deep."""
        brackets = self._text.count("{", start, end) + self._text.count("[", start, end)
        return depth + brackets <= MAX_DEPTH

    def _skip_by_walking(self, depth: int) -> None:
        if depth == MAX_DEPTH:
            raise _too_deep()
        if self.peek() == "[":
            for _ in self.elements():
                self._skip_elements(depth + 1)
                self.skip(depth + 1)
            return
        for _ in self._members(self._skip_string):
            self.skip(depth + 1)

    def _members(self, pass_key: Callable[[], T]) -> Iterator[T]:
        """Walk an object: yield what `pass_key` returns, with the stream before that key's value."""
        self._pass("{")
        if self.peek() == "}":
            self._position += 1
            return
        while True:
            if self.peek() != '"':
                raise self._syntax_error(self._position, "Expecting property name enclosed in double quotes")
            key = pass_key()
            self._pass(":")
            yield key
            if self._pass(",}") == "}":
                return

    def _key(self) -> str:
        self._fill(MAX_KEY)
        try:
            key, end = _SKIPPING.raw_decode(self._text, self._position)
        except json.JSONDecodeError as error:
            raise self._syntax_error(error.pos, error.msg) from error
        if end - self._position > MAX_KEY:
            raise JsonRefusedError(f"a key of more than {MAX_KEY} characters", "keys of a sensible length")
        self._position = end
        return str(key)

    def _skip_string(self) -> None:
        start = self._dropped + self._position
        self._position += 1
        while True:
            self._fill(_LONGEST_ESCAPE)
            self._position = self._match_end(_PLAIN_CHARACTERS)
            if self._position == len(self._text):
                if self._at_end:
                    raise self._syntax_error(start - self._dropped, "Unterminated string starting at")
                continue
            if self._text[self._position] == '"':
                self._position += 1
                return
            self._fill(_LONGEST_ESCAPE)
            escape = _ESCAPE.match(self._text, self._position)
            if escape is None:
                what = "escape" if self._text[self._position] == "\\" else "control character"
                raise self._syntax_error(self._position, f"Invalid {what} in a string")
            self._position = escape.end()

    def _skip_scalar(self) -> None:
        self._fill(MAX_NUMBER + 1)
        constant = _CONSTANT.match(self._text, self._position)
        if constant:
            refuse_constant(constant.group())
        scalar = _SCALAR.match(self._text, self._position)
        if scalar is None:
            raise self._syntax_error(self._position, "Expecting value")
        if scalar.end() - self._position > MAX_NUMBER:
            raise too_long_number()
        self._position = scalar.end()

    def _pass(self, wanted: str) -> str:
        """Pass one of the characters in `wanted` and return it."""
        found = self.peek()
        if not found or found not in wanted:
            names = " or ".join(repr(each) for each in wanted)
            raise self._syntax_error(self._position, f"Expecting {names}")
        self._position += 1
        return found

    def _match_end(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._position)
        return found.end() if found else self._position

    def _fill(self, wanted: int) -> None:
        """Read on until `wanted` characters lie ahead, or the file ends."""
        if self._at_end or len(self._text) - self._position >= wanted:
            return
        self._drop()
        parts = [self._text]
        ahead = len(self._text)
        while ahead < wanted and not self._at_end:
            parts.append(self._read())
            ahead += len(parts[-1])
        self._text = "".join(parts)

    def _drop(self) -> None:
        """Forget what was passed, but for where it ended."""
        passed, self._text = self._text[: self._position], self._text[self._position :]
        newlines = passed.count("\n")
        self._column_before = len(passed) - passed.rfind("\n") - 1 if newlines else self._column_before + len(passed)
        self._lines_before += newlines
        self._dropped += self._position
        self._position = 0

    def _read(self) -> str:
        chunk = self._source.read(CHUNK)
        if self.size == 0 and chunk.startswith(BYTE_ORDER_MARKS):
            raise JsonRefusedError("a byte order mark", "UTF-8 without BOM")
        pending = len(self._decoder.getstate()[0])
        offset = self.size - pending
        self.size += len(chunk)
        self._check_size()
        self._digest.update(chunk)
        self._at_end = not chunk
        try:
            return self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise JsonRefusedError(f"bytes that are not UTF-8 at offset {offset + error.start}", "UTF-8") from error

    def _check_size(self) -> None:
        if self.size > self._limit:
            raise JsonRefusedError(f"more than {self._limit} bytes", f"at most {self._limit} bytes")

    def _syntax_error(self, position: int, message: str) -> JsonRefusedError:
        before = self._text[:position] if position >= 0 else ""
        newlines = before.count("\n")
        column = len(before) - before.rfind("\n") - 1 if newlines else self._column_before + len(before)
        return syntax_error(self._lines_before + newlines + 1, column + 1, message)


def _check_depth(value: JsonValue, levels: int) -> None:
    """Refuse a value with more than `levels` of lists and objects in each other."""
    layer = [value] if isinstance(value, dict | list) else []
    while layer:
        if levels == 0:
            raise _too_deep()
        levels -= 1
        nodes = (node.values() if isinstance(node, dict) else node for node in layer)
        layer = [child for node in nodes for child in node if isinstance(child, dict | list)]


def _too_deep() -> JsonRefusedError:
    return JsonRefusedError("nesting too deep to read", f"at most {MAX_DEPTH} levels")


def _too_long(path: str) -> JsonRefusedError:
    return JsonRefusedError(f"more than {MAX_TAKEN} characters", "an entry of a sensible length", field=path)
