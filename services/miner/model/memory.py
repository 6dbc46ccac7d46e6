"""What a model takes beside its weights, in bytes, from the numbers of its header. Pure.

Estimates, and rather too high: a layer with a window is counted as one that sees all. What the header does not say
counts as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.miner.model.gguf import Structure
from services.miner.model.gguf_types import CACHE_TYPES
from services.miner.settings import MinerSettings

FLOAT = 4
MASK_BYTES = 6  # of the attention mask, for each token of a step and each cell: 32 bits, and a copy with 16


@dataclass(frozen=True, slots=True)
class Needs:
    """`cell`: keys and values of one token. `step_cell`: what a step takes for each cell of the cache.

    `state`: of one sequence, whatever its length. `step`: activations of one step. `logits`: a row for each output.
    """

    cell: float
    step_cell: int
    state: int
    step: int
    logits: int


def needs(settings: MinerSettings, structure: Structure, batch_tokens: int, outputs: int) -> Needs:
    """Estimate for steps of `batch_tokens`, of which at most so many are `outputs`."""
    heads = max(structure.numbers("attention.head_count"), default=0)
    masks = MASK_BYTES * (2 if structure.number("attention.sliding_window") else 1)
    scores = heads * FLOAT if settings.flash_attention == "off" else 0  # flash attention never writes them down
    return Needs(
        cell=_cell(settings, structure),
        step_cell=batch_tokens * (masks + scores),
        state=_state(structure),
        step=batch_tokens * _activations(structure),
        logits=outputs * structure.words * FLOAT,
    )


def head_widths(structure: Structure) -> tuple[int, int]:
    """Return how many numbers one head keeps of a token, as key and as value; 0 where there is no attention."""
    heads = max(structure.numbers("attention.head_count"), default=0)
    width = (structure.number("embedding_length") or 0) // heads if heads else 0
    keys, values = structure.number("attention.key_length"), structure.number("attention.value_length")
    return width if keys is None else keys, width if values is None else values


def cell_numbers(structure: Structure) -> int:
    """Return how many numbers the keys and values of one token are, over all layers."""
    return sum(_cache_heads(structure)) * sum(head_widths(structure))


def _cache_heads(structure: Structure) -> tuple[int, ...]:
    return structure.numbers("attention.head_count_kv") or structure.numbers("attention.head_count")


def _cell(settings: MinerSettings, structure: Structure) -> float:
    keys, values = head_widths(structure)
    bytes_k, bytes_v = CACHE_TYPES[settings.kv_type_k][1], CACHE_TYPES[settings.kv_type_v][1]
    return sum(_cache_heads(structure)) * (keys * bytes_k + values * bytes_v)


def _state(structure: Structure) -> int:
    """Layers without key-value heads have a state; where no layer is without them, all may have both."""
    width = structure.number("embedding_length") or 0
    inner, state = structure.number("ssm.inner_size") or 0, structure.number("ssm.state_size") or 0
    groups, kernel = structure.number("ssm.group_count") or 0, structure.number("ssm.conv_kernel") or 1
    numbers = (kernel - 1) * (inner + 2 * groups * state) + inner * state
    if head := structure.number("wkv.head_size"):
        numbers = width * (head + (structure.number("token_shift_count") or 2))
    if window := structure.number("shortconv.l_cache"):
        numbers = width * (window - 1)
    without = structure.numbers("attention.head_count_kv").count(0)
    return FLOAT * numbers * (without or structure.number("block_count") or 0)


def _activations(structure: Structure) -> int:
    width = structure.number("embedding_length") or 0
    inner = max(*structure.numbers("feed_forward_length"), 2 * (structure.number("ssm.inner_size") or 0), 0)
    return FLOAT * (4 * width + 3 * inner)
