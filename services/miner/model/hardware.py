"""One decision for one model on one machine: layers, context, threads, and why. Pure.

It is logged, exported and shown in `/v1/models`. Offload that was asked for and is impossible is an error, never a
silent run on the processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.miner.model.gguf import Structure
from services.miner.model.gguf_types import CACHE_TYPES
from services.miner.model.probe import Machine
from services.miner.settings import MinerSettings
from shared.errors import ConfigurationError

ALL_LAYERS = -1
CELLS_A_SEQUENCE = 1_024  # of the automatic context, so that all sequences can run at once
MAX_AUTO_SEQUENCE = 32_768  # a longer context than this only on request: most of its memory would lie idle
MIN_CELLS = 512
UNKNOWN_CELLS = 8_192  # where the file does not say what a cell costs
CACHE_SHARE_OF_MEMORY = 0.25  # of what is left beside the weights
GPU_RESERVE_BYTES = 768 * 1024 * 1024  # the driver's context and llama.cpp's compute buffers
PROCESSOR_BATCH, GPU_BATCH = 512, 1_024  # tokens a step: bounds how long others wait for one step


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine is told. `gpu_layers` -1 is all; `cells` is the context that all sequences share."""

    gpu_layers: int
    cells: int
    sequence_tokens: int
    threads: int
    batch_tokens: int
    prefill_tokens: int
    why: tuple[str, ...]

    @property
    def offloads(self) -> bool:
        """Whether any layer runs on a GPU."""
        return self.gpu_layers != 0


def require_possible(settings: MinerSettings, machine: Machine) -> None:
    """Raise ConfigurationError when layers on a GPU were asked for and nothing here can run them."""
    if settings.n_gpu_layers in ("auto", 0) or machine.offload_supported:
        return
    raise ConfigurationError(
        f"R3MES_N_GPU_LAYERS: found {settings.n_gpu_layers}, but this build of llama.cpp can use no GPU here",
        next_step="unset it to run on the processor, or install llama-cpp-python built for the GPU and its driver",
    )


def decide(settings: MinerSettings, structure: Structure, weight_bytes: int, machine: Machine) -> Decision:
    """Decide for a model of `weight_bytes`; raises ConfigurationError as `require_possible` does."""
    require_possible(settings, machine)
    why: list[str] = []
    threads = _threads(settings, machine, why)
    cell_bytes = _cell_bytes(settings, structure)
    offload = machine.offload_supported and settings.n_gpu_layers != 0
    memory = sum(gpu.free_bytes for gpu in machine.gpus) if offload and machine.gpus else machine.memory_bytes
    cells, sequence_tokens = _context(settings, structure, cell_bytes, memory - weight_bytes, why)
    layers = _layers(settings, structure, weight_bytes + round(cells * cell_bytes), machine, why)
    batch = GPU_BATCH if layers else PROCESSOR_BATCH
    batch = max(min(batch, cells), settings.max_sequences)
    return Decision(layers, cells, sequence_tokens, threads, batch, max(batch // 4, 1), tuple(why))


def _threads(settings: MinerSettings, machine: Machine, why: list[str]) -> int:
    if settings.threads != "auto":
        why.append(f"{settings.threads} threads as set")
        return settings.threads
    limit = machine.processors if machine.quota is None else min(machine.processors, max(math.floor(machine.quota), 1))
    quota = "" if machine.quota is None else f", quota {machine.quota:g}"
    why.append(f"{limit} threads: {machine.processors} processors{quota}")
    return limit


def _cell_bytes(settings: MinerSettings, structure: Structure) -> float:
    heads = structure.numbers("attention.head_count_kv") or structure.numbers("attention.head_count")
    width = structure.number("embedding_length") or 0
    per_head = width // max(structure.numbers("attention.head_count") or (1,))
    keys = structure.number("attention.key_length") or per_head
    values = structure.number("attention.value_length") or per_head
    bytes_k, bytes_v = CACHE_TYPES[settings.kv_type_k][1], CACHE_TYPES[settings.kv_type_v][1]
    return sum(heads) * (keys * bytes_k + values * bytes_v)


def _context(
    settings: MinerSettings, structure: Structure, cell_bytes: float, room: int, why: list[str]
) -> tuple[int, int]:
    trained = structure.number("context_length")
    if settings.n_ctx != "auto":
        why.append(f"{settings.n_ctx} cells as set")
        return settings.n_ctx, min(settings.n_ctx, trained or settings.n_ctx)
    if not trained or not cell_bytes:
        why.append(f"{UNKNOWN_CELLS} cells: the file does not say what one costs")
        return UNKNOWN_CELLS, min(UNKNOWN_CELLS, trained or UNKNOWN_CELLS)
    wanted = max(min(trained, MAX_AUTO_SEQUENCE), settings.max_sequences * CELLS_A_SEQUENCE)
    affordable = int(max(room, 0) * CACHE_SHARE_OF_MEMORY / cell_bytes)
    cells = max(min(wanted, affordable), MIN_CELLS)
    reason = "as wanted" if cells == wanted else f"of {wanted} wanted, by memory"
    why.append(f"{cells} cells {reason}: trained on {trained}, {cell_bytes / 1024:.1f} KiB a cell")
    return cells, min(cells, trained)


def _layers(settings: MinerSettings, structure: Structure, needed_bytes: int, machine: Machine, why: list[str]) -> int:
    if not machine.offload_supported:
        why.append("no layer on a GPU: this build of llama.cpp finds none")
        return 0
    if settings.n_gpu_layers != "auto":
        why.append(f"{settings.n_gpu_layers} layers on the GPU as set")
        return settings.n_gpu_layers
    if not machine.gpus:
        why.append("all layers on the GPU: its memory is not known")
        return ALL_LAYERS
    room = sum(max(gpu.free_bytes - GPU_RESERVE_BYTES, 0) for gpu in machine.gpus)
    if needed_bytes <= room:
        why.append(f"all layers on the GPU: {needed_bytes >> 20} MiB of {room >> 20} MiB")
        return ALL_LAYERS
    layers = structure.number("block_count") or 0
    fitting = layers * room // needed_bytes
    why.append(f"{fitting} of {layers} layers on the GPU: {needed_bytes >> 20} MiB wanted, {room >> 20} MiB free")
    return fitting
