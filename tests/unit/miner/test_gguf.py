"""The structure of a GGUF file: what does not fit the file never reaches llama.cpp."""

from __future__ import annotations

import os
import struct
import tempfile
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.model.gguf import Structure, read_structure
from shared.errors import IntegrityError
from tests.unit.miner.gguf_bytes import KEYS, gguf, pair, tensor, text

HUGE = 2**63


def structure_of(content: bytes) -> Structure:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_structure(file.fileno())


def test_a_sound_file_tells_what_hardware_and_api_need() -> None:
    structure = structure_of(gguf(keys=(*KEYS, ("tokenizer.chat_template", 8, "{{ messages }}"))))
    assert structure.architecture == "llama"
    assert structure.quantization == "Q4_K_M"
    assert structure.number("context_length") == 4096
    assert structure.numbers("attention.head_count_kv") == (2, 2)
    assert structure.chat_template == "{{ messages }}"
    assert structure.tensors == 1


def test_numbers_one_a_layer_are_kept_and_a_vocabulary_is_walked_over() -> None:
    heads = struct.pack("<IQII", 4, 2, 3, 5)
    names = struct.pack("<IQ", 8, 2) + text("a") + text("b")
    keys = (*KEYS[:-1], ("llama.attention.head_count_kv", 9, heads), ("tokenizer.ggml.tokens", 9, names))
    structure = structure_of(gguf(keys=keys))
    assert structure.numbers("attention.head_count_kv") == (3, 5)
    assert structure.metadata["tokenizer.ggml.tokens"] is None


WRONG = {
    "no GGUF": (gguf(magic=b"GGML"), "magic"),
    "an unknown version": (gguf(version=4), "version"),
    "empty": (b"", "magic"),
    "more tensors than there are": (gguf(tensor_count=2), "offset 0, wanted 512"),
    "countless tensors": (gguf(tensor_count=HUGE), "tensor count"),
    "countless keys": (gguf(key_count=HUGE), "key count"),
    "a key twice": (gguf(keys=(*KEYS, KEYS[0])), "general.architecture"),
    "an empty key": (gguf(keys=(("", 4, 1),)), "empty"),
    "an unknown value type": (
        gguf(keys=(("x", 4, 1),)).replace(pair("x", 4, 1), text("x") + struct.pack("<II", 77, 1)),
        "77",
    ),
    "an array of arrays": (gguf(keys=(("x", 9, struct.pack("<IQ", 9, 1)),)), "array type 9"),
    "a string longer than the file": (
        gguf(keys=(("x", 4, 1),)).replace(text("x"), struct.pack("<Q", HUGE) + b"x"),
        "key 0",
    ),
    "countless strings": (gguf(keys=(("x", 9, struct.pack("<IQ", 8, HUGE)),)), "too many"),
    "countless numbers": (gguf(keys=(("x", 9, struct.pack("<IQ", 10, HUGE)),)), "do not fit"),
    "an alignment of three": (gguf(keys=(*KEYS, ("general.alignment", 4, 3))), "power of two"),
    "an alignment of nothing": (gguf(keys=(*KEYS, ("general.alignment", 4, 0))), "power of two"),
    "part of a split model": (gguf(keys=(*KEYS, ("split.count", 4, 3))), "split"),
    "more layers than llama.cpp takes": (gguf(keys=(KEYS[0], ("llama.block_count", 4, 2**31))), "2147483648 layers"),
    "data that ends too early": (gguf(data=511), "1 bytes too late"),
    "five dimensions": (gguf(tensors=(tensor("w", (1, 1, 1, 1, 1), 0),)), "5 dimensions"),
    "an unknown tensor type": (gguf(tensors=(tensor("w", (32,), 31),)), "tensor type 31"),
    "a row that is no whole block": (gguf(tensors=(tensor("w", (33,), 2),)), "shape"),
    "a tensor larger than the file": (gguf(tensors=(tensor("w", (2**40, 2**40, 2**40), 0),)), "shape"),
    "a tensor that starts elsewhere": (gguf(tensors=(tensor("w", (32,), 0, 64),)), "offset 64"),
    "two tensors in one place": (gguf(tensors=(tensor("a", (32,), 0), tensor("b", (32,), 0))), "offset 0, wanted 128"),
    "a tensor's name twice": (gguf(tensors=(tensor("a", (32,), 0), tensor("a", (32,), 0, 128))), "twice"),
    "a name without end": (gguf(tensors=(tensor("w" * 64, (32,), 0),)), "64 bytes"),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_lie_is_refused_and_named(content: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match="not a sound GGUF file") as error:
        structure_of(content)
    assert words in error.value.message


@given(st.data())
def test_a_file_with_any_bytes_changed_or_cut_off_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(gguf(data=64))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(IntegrityError):
        structure_of(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_weights_are_counted_for_each_layer_and_the_words_of_the_vocabulary() -> None:
    words = struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("c")
    tensors = [
        ("token_embd.weight", 4),
        ("blk.1.ffn_up.weight", 2),
        ("blk.0.ffn_up.weight", 1),
        ("blk.1.attn_q.weight", 1),
    ]
    places = accumulate((128 * rows for _, rows in tensors), initial=0)
    content = gguf(
        keys=(*KEYS, ("tokenizer.ggml.tokens", 9, words)),
        tensors=tuple(tensor(name, (32, rows), 0, at) for (name, rows), at in zip(tensors, places, strict=False)),
        data=1024,
    )
    structure = structure_of(content)
    assert structure.words == 3
    assert structure.block_bytes == (128, 384)
    assert structure.output_bytes == 512


def test_reading_moves_nobody_elses_offset(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf())
    with path.open("rb") as file:
        file.seek(7)
        read_structure(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 7
