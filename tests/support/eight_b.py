"""A file with the shape of Llama-3-8B Q4_K_M: 4.9 GB that take no room on the disk, as every weight is a hole of zeros.

What it answers means nothing; what it takes of memory is what a real one takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

LAYERS, WIDTH, INNER, HEADS, GROUPS = 32, 4096, 14336, 32, 8
WORDS = 128_256
F32, Q4_K, Q6_K = GGMLQuantizationType.F32, GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K
HALF = {*range(LAYERS // 8), *range(LAYERS - LAYERS // 8, LAYERS), *range(LAYERS // 8, LAYERS - LAYERS // 8, 3)}

Tensor = tuple[str, tuple[int, ...], GGMLQuantizationType]


def write_eight_b(vocabulary: Path, target: Path) -> None:
    """Write it; its first words are those of the GGUF file `vocabulary`, the others are unused ones."""
    writer = GGUFWriter(target, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500_000.0)
    writer.add_file_type(15)
    for field in GGUFReader(vocabulary).fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        content, types = field.contents(), field.types
        if field.name == "tokenizer.ggml.tokens":
            content = [*content, *(f"[unused{number}]" for number in range(len(content), WORDS))]
        elif field.name == "tokenizer.ggml.token_type":
            content = [*content, *[5] * (WORDS - len(content))]
        elif field.name == "tokenizer.ggml.scores":
            content = [*content, *[0.0] * (WORDS - len(content))]
        sub_type = types[-1] if types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, content, types[0], sub_type=sub_type)
    size = 0
    for name, shape, kind in _tensors():
        width = GGML_QUANT_SIZES[kind]
        count = math.prod(shape) // width[0] * width[1]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), count, raw_dtype=kind)
        size += (count + 31) // 32 * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with target.open("r+b") as file:
        header = file.seek(0, 2)
        file.truncate((header + 31) // 32 * 32 + size)


def _tensors() -> Iterator[Tensor]:
    yield "token_embd.weight", (WORDS, WIDTH), Q4_K
    yield "output_norm.weight", (WIDTH,), F32
    yield "output.weight", (WORDS, WIDTH), Q6_K
    for layer in range(LAYERS):
        more = Q6_K if layer in HALF else Q4_K  # as llama.cpp's Q4_K_M spends its bits
        yield f"blk.{layer}.attn_norm.weight", (WIDTH,), F32
        yield f"blk.{layer}.ffn_norm.weight", (WIDTH,), F32
        yield f"blk.{layer}.attn_q.weight", (WIDTH, WIDTH), Q4_K
        yield f"blk.{layer}.attn_k.weight", (WIDTH * GROUPS // HEADS, WIDTH), Q4_K
        yield f"blk.{layer}.attn_v.weight", (WIDTH * GROUPS // HEADS, WIDTH), more
        yield f"blk.{layer}.attn_output.weight", (WIDTH, WIDTH), Q4_K
        yield f"blk.{layer}.ffn_gate.weight", (INNER, WIDTH), Q4_K
        yield f"blk.{layer}.ffn_up.weight", (INNER, WIDTH), Q4_K
        yield f"blk.{layer}.ffn_down.weight", (WIDTH, INNER), more
