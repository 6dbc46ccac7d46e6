"""The structure of a GGUF file, walked before llama.cpp sees it: counts, lengths and offsets against the file's size.

Reads the header only, never a weight, and only through the descriptor that was checked. Refuses what llama.cpp refuses,
and parts of a split model. Raises IntegrityError that names the place; returns what hardware and API need to know.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from services.miner.model.gguf_types import ARRAY, BLOCKS, FILE_TYPES, SCALARS, STRING
from shared.errors import IntegrityError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_TENSORS = 65_536
MAX_PAIRS = 65_536
MAX_NAME_BYTES = 63  # GGML_MAX_NAME with its NUL
MAX_KEY_BYTES = 65_535
MAX_DIMENSIONS = 4
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_ARRAY_STRINGS = 1 << 24  # the largest vocabularies have a quarter of a million
KEPT_STRING_BYTES = 1 << 20  # a chat template is some kilobytes
KEPT_ARRAY_ITEMS = 4_096  # per-layer numbers are kept, the vocabulary is walked over

ENDS = ("token_embd.weight", "output.weight")
_BLOCK = re.compile(r"blk\.(\d{1,5})\.")

Value = int | float | bool | str | tuple[int | float | bool, ...] | None


@dataclass(frozen=True, slots=True)
class Structure:
    """What the header says. `metadata` holds numbers, short arrays of numbers and strings; long ones are None.

    `words` is the size of the vocabulary, `block_bytes` the weights of each layer, `output_bytes` those of the last
    matrix, which makes the logits; 0 and empty where the file has none. `weights` counts all numbers of all tensors,
    `largest` those of the largest one.
    """

    metadata: dict[str, Value]
    tensors: int
    words: int = 0
    block_bytes: tuple[int, ...] = ()
    output_bytes: int = 0
    weights: int = 0
    largest: int = 0

    @property
    def architecture(self) -> str:
        """Name of the architecture, which prefixes its own keys."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def quantization(self) -> str:
        """Name of the file type (`Q4_K_M`), as llama.cpp writes it; empty where the file names none."""
        number = self.metadata.get("general.file_type")
        return FILE_TYPES.get(number, f"type {number}") if isinstance(number, int) else ""

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that the model was trained with."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def number(self, key: str) -> int | None:
        """Return the architecture's own whole number, for example `number("context_length")`."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def numbers(self, key: str) -> tuple[int, ...]:
        """Return the architecture's own numbers, one a layer; a single one stands for every layer."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            return tuple(int(item) for item in value)
        single = self.number(key)
        return () if single is None else (single,) * max(self.number("block_count") or 1, 1)


def read_structure(descriptor: int) -> Structure:
    """Walk the header of the file behind `descriptor`; raises IntegrityError where it does not fit the file."""
    with open(f"/proc/self/fd/{descriptor}", "rb", buffering=1 << 20) as file:
        walk = _Walk(file, file.seek(0, io.SEEK_END))
        file.seek(0)
        return walk.structure()


class _Walk:
    """One pass over the header; every read is bounded by what is left of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0
        self._words = 0
        self._blocks: dict[int, int] = {}
        self._ends: dict[str, int] = {}
        self._weights = self._largest = 0

    def structure(self) -> Structure:
        if self._take(4, "magic") != MAGIC:
            raise self._wrong("magic", "not a GGUF file")
        version = self._number("<I", "version")
        if version not in VERSIONS:
            raise self._wrong("version", f"version {version}, wanted one of {VERSIONS}")
        tensors = self._count("tensor count", MAX_TENSORS)
        pairs = self._count("key count", MAX_PAIRS)
        metadata: dict[str, Value] = {}
        for index in range(pairs):
            key = self._string(f"key {index}", MAX_KEY_BYTES)
            if not key or key in metadata:
                raise self._wrong(f"key {index}", f"empty or twice: {key!r:.80}")
            metadata[key] = self._value(key)
        layers = Structure(metadata, tensors).number("block_count") or 0
        if not 0 <= layers <= MAX_LAYERS:
            raise self._wrong("block_count", f"{layers} layers, wanted at most {MAX_LAYERS}")
        if metadata.get("split.count", 0) not in (0, 1):
            raise self._wrong("split.count", "one part of a split model")
        self._tensors(tensors, _alignment(metadata))
        blocks = tuple(self._blocks[index] for index in sorted(self._blocks))
        output = self._ends.get("output.weight", self._ends.get("token_embd.weight", 0))  # one matrix may be both ends
        return Structure(metadata, tensors, self._words, blocks, output, self._weights, self._largest)

    def _value(self, key: str) -> Value:
        kind = self._number("<I", key)
        if kind == STRING:
            return self._string(key, self._size, keep=KEPT_STRING_BYTES)
        if kind == ARRAY:
            return self._array(key)
        if kind not in SCALARS:
            raise self._wrong(key, f"unknown value type {kind}")
        value: int | float | bool = struct.unpack(SCALARS[kind], self._take(struct.calcsize(SCALARS[kind]), key))[0]
        return value

    def _array(self, key: str) -> Value:
        kind = self._number("<I", key)
        count = self._number("<Q", key)
        if kind == STRING:
            if count > min(MAX_ARRAY_STRINGS, (self._size - self._at) // 8):
                raise self._wrong(key, f"{count} strings are too many, or do not fit the file")
            for _ in range(count):
                self._skip(self._number("<Q", key), key)
            if key == "tokenizer.ggml.tokens":
                self._words = count
            return None
        if kind not in SCALARS:
            raise self._wrong(key, f"unknown array type {kind}")
        code = SCALARS[kind]
        width = struct.calcsize(code)
        if count > KEPT_ARRAY_ITEMS:
            self._skip(count * width, key)
            return None
        return tuple(item[0] for item in struct.iter_unpack(code, self._take(count * width, key)))

    def _tensors(self, count: int, alignment: int) -> None:
        names: set[str] = set()
        expected = 0
        for index in range(count):
            name = self._string(f"tensor {index}", MAX_NAME_BYTES)
            if name in names:
                raise self._wrong(f"tensor {index}", f"the name {name!r} stands twice")
            names.add(name)
            size = self._tensor_bytes(name)
            self._count_weights(name, size)
            offset = self._number("<Q", name)
            if offset != expected:
                raise self._wrong(name, f"offset {offset}, wanted {expected}")
            expected = _padded(offset + size, alignment)
            end = offset + size
        if count and _padded(self._at, alignment) + end > self._size:
            raise self._wrong("tensor data", f"ends {_padded(self._at, alignment) + end - self._size} bytes too late")

    def _count_weights(self, name: str, size: int) -> None:
        if block := _BLOCK.match(name):
            index = int(block[1])
            self._blocks[index] = self._blocks.get(index, 0) + size
        elif name in ENDS:
            self._ends[name] = size

    def _tensor_bytes(self, name: str) -> int:
        dimensions = self._number("<I", name)
        if dimensions > MAX_DIMENSIONS:
            raise self._wrong(name, f"{dimensions} dimensions, wanted at most {MAX_DIMENSIONS}")
        shape = [self._number("<Q", name) for _ in range(dimensions)]
        kind = self._number("<I", name)
        if kind not in BLOCKS:
            raise self._wrong(name, f"unknown tensor type {kind}")
        block, width = BLOCKS[kind]
        elements = 1
        for extent in shape:
            elements *= extent
        if (shape[0] if shape else 1) % block or elements // block * width > self._size:
            raise self._wrong(name, f"shape {shape} does not fit its type or the file")
        self._weights += elements
        self._largest = max(self._largest, elements)
        return elements // block * width

    def _count(self, place: str, limit: int) -> int:
        count = self._number("<Q", place)
        if count > limit:
            raise self._wrong(place, f"{count}, wanted at most {limit}")
        return count

    def _number(self, code: str, place: str) -> int:
        number: int = struct.unpack(code, self._take(struct.calcsize(code), place))[0]
        return number

    def _string(self, place: str, limit: int, *, keep: int | None = None) -> str:
        length = self._number("<Q", place)
        if length > limit:
            raise self._wrong(place, f"a string of {length} bytes, wanted at most {limit}")
        if keep is not None and length > keep:
            self._skip(length, place)
            return ""
        return self._take(length, place).decode("utf-8", errors="replace")

    def _skip(self, count: int, place: str) -> None:
        self._bound(count, place)
        self._file.seek(count, io.SEEK_CUR)
        self._at += count

    def _take(self, count: int, place: str) -> bytes:
        self._bound(count, place)
        content = self._file.read(count)
        if len(content) != count:
            raise self._wrong(place, "the file ends here")
        self._at += count
        return content

    def _bound(self, count: int, place: str) -> None:
        if count > self._size - self._at:
            raise self._wrong(place, f"{count} bytes do not fit the file")

    def _wrong(self, place: str, what: str) -> IntegrityError:
        return IntegrityError(f"not a sound GGUF file: {place} at byte {self._at}: {what}")


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise IntegrityError(f"not a sound GGUF file: general.alignment is {alignment!r:.40}, wanted a power of two")
    return alignment


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment
