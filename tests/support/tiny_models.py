"""Models of a few megabytes with random weights, one for each kind of memory, and the vocabulary of a real file.

What they say means nothing, but each token depends on all before it that the model can still see, so a state that is
lost, stale or of another sequence changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray

WIDTH = 32
LAYERS = 2
HEADS = 2
FEED_FORWARD = 64
INNER, STATE, CONVOLUTION, STEP_RANK = 2 * WIDTH, 16, 4, 4  # of a state space layer
WINDOW = 24
TRAINED = 4_096

# Which architecture of llama.cpp has this kind of memory and few tensors.
ARCHITECTURES = {"recurrent": "mamba", "hybrid": "jamba", "sliding-window": "cohere2"}

Tensors = Iterator[tuple[str, NDArray[np.float32]]]


def write_tiny(kind: str, vocabulary: Path, target: Path) -> None:
    """Write a model with this kind of memory to `target`; tokens are those of the GGUF file `vocabulary`."""
    writer = GGUFWriter(target, ARCHITECTURES[kind])
    writer.add_context_length(TRAINED)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokeniser = _tokeniser(vocabulary)
    for name, (content, types) in tokeniser.items():
        writer.add_key_value(name, content, types[0], sub_type=types[-1] if types[0] is GGUFValueType.ARRAY else None)
    words = len(tokeniser["tokenizer.ggml.tokens"][0])
    weights = _Weights(sum(kind.encode()))
    if kind == "recurrent":
        tensors = _recurrent(writer, weights)
    elif kind == "hybrid":
        tensors = _hybrid(writer, weights)
    else:
        tensors = _sliding(writer, weights)
    writer.add_tensor("token_embd.weight", weights.matrix(words, WIDTH))  # of both ends
    writer.add_tensor("output_norm.weight", weights.ones(WIDTH))
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(source: Path, target: Path, *, division: str) -> None:
    """Write the vocabulary of a GGUF file and no model, with another name for how a text is divided before."""
    writer = GGUFWriter(target, "llama")
    for name, (content, types) in _tokeniser(source).items():
        value = division if name == "tokenizer.ggml.pre" else content
        writer.add_key_value(name, value, types[0], sub_type=types[-1] if types[0] is GGUFValueType.ARRAY else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


class _Weights:
    """Random weights; shapes are numpy's, (out, in)."""

    def __init__(self, seed: int) -> None:
        self._chance = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> NDArray[np.float32]:
        return (self._chance.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def between(self, low: float, high: float, *shape: int) -> NDArray[np.float32]:
        return self._chance.uniform(low, high, shape).astype(np.float32)

    @staticmethod
    def ones(size: int) -> NDArray[np.float32]:
        return np.ones(size, np.float32)


@cache  # the package takes seconds to read the words of a real file
def _tokeniser(file: Path) -> dict[str, tuple[Any, list[GGUFValueType]]]:
    fields = GGUFReader(file).fields.values()
    return {field.name: (field.contents(), field.types) for field in fields if field.name.startswith("tokenizer.")}


def _recurrent(writer: GGUFWriter, weights: _Weights) -> Tensors:
    writer.add_head_count(0)  # as llama.cpp's converter writes it
    writer.add_feed_forward_length(0)
    _describe_state_space(writer)
    return (each for layer in range(LAYERS) for each in _state_space(f"blk.{layer}", weights, inner_norms=False))


def _hybrid(writer: GGUFWriter, weights: _Weights) -> Tensors:
    """One layer with a state, one with attention; llama.cpp knows them by their key-value heads."""
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([0, HEADS])
    writer.add_feed_forward_length(FEED_FORWARD)
    _describe_state_space(writer)
    yield from _state_space("blk.0", weights, inner_norms=True)
    yield from _feed_forward("blk.0", weights)
    yield from _attention("blk.1", weights)
    yield from _feed_forward("blk.1", weights)


def _sliding(writer: GGUFWriter, weights: _Weights) -> Tensors:
    """One layer that sees `WINDOW` tokens, one that sees all."""
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_layer_norm_eps(1e-5)
    writer.add_logit_scale(1.0)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern([True, False])
    for layer in range(LAYERS):
        yield from _attention(f"blk.{layer}", weights)
        yield from _feed_forward(f"blk.{layer}", weights, norm=False)


def _describe_state_space(writer: GGUFWriter) -> None:
    writer.add_ssm_conv_kernel(CONVOLUTION)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(STEP_RANK)


def _state_space(block: str, weights: _Weights, *, inner_norms: bool) -> Tensors:
    yield f"{block}.attn_norm.weight", weights.ones(WIDTH)
    yield f"{block}.ssm_in.weight", weights.matrix(2 * INNER, WIDTH, 2.0)
    yield f"{block}.ssm_conv1d.weight", weights.matrix(INNER, CONVOLUTION, 2.0)
    yield f"{block}.ssm_conv1d.bias", weights.between(-0.1, 0.1, INNER)
    yield f"{block}.ssm_x.weight", weights.matrix(STEP_RANK + 2 * STATE, INNER, 2.0)
    yield f"{block}.ssm_dt.weight", weights.matrix(INNER, STEP_RANK, 0.2)
    yield f"{block}.ssm_dt.bias", weights.between(-1.0, 0.0, INNER)
    yield f"{block}.ssm_a", weights.between(-0.02, -0.002, INNER, STATE)  # near 0: it forgets slowly
    yield f"{block}.ssm_d", weights.between(0.2, 0.5, INNER)
    yield f"{block}.ssm_out.weight", weights.matrix(WIDTH, INNER, 6.0)
    if inner_norms:
        yield f"{block}.ssm_dt_norm.weight", weights.ones(STEP_RANK)
        yield f"{block}.ssm_b_norm.weight", weights.ones(STATE)
        yield f"{block}.ssm_c_norm.weight", weights.ones(STATE)


def _attention(block: str, weights: _Weights) -> Tensors:
    yield f"{block}.attn_norm.weight", weights.ones(WIDTH)
    for name in ("q", "k", "v"):
        yield f"{block}.attn_{name}.weight", weights.matrix(WIDTH, WIDTH, 1.5)
    yield f"{block}.attn_output.weight", weights.matrix(WIDTH, WIDTH, 4.0)


def _feed_forward(block: str, weights: _Weights, *, norm: bool = True) -> Tensors:
    if norm:
        yield f"{block}.ffn_norm.weight", weights.ones(WIDTH)
    yield f"{block}.ffn_gate.weight", weights.matrix(FEED_FORWARD, WIDTH, 2.0)
    yield f"{block}.ffn_up.weight", weights.matrix(FEED_FORWARD, WIDTH, 2.0)
    yield f"{block}.ffn_down.weight", weights.matrix(WIDTH, FEED_FORWARD, 2.0)
