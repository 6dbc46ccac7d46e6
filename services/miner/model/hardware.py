"""One decision for one model on one machine: layers, context, threads, and why. Pure.

It is logged, exported and shown in `/v1/models`. Offload that was asked for and is impossible is an error, never a
silent run on the processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.miner.engine.aside import ASIDE_BATCH, ASIDE_CELLS
from services.miner.engine.messages import EngineKind, FloatType
from services.miner.engine.prefix_cache import slot_count
from services.miner.engine.scheduler import EMBED_TOKENS
from services.miner.model.gguf import Structure
from services.miner.model.gguf_types import CACHE_TYPES
from services.miner.model.memory import Needs, head_widths, needs
from services.miner.model.probe import Gpu, Machine
from services.miner.model.split import fitting_layers
from services.miner.settings import MinerSettings
from shared.errors import ConfigurationError

HOW_TO_TORCH = "use the image miner-torch, or install the extra: make install-torch"
ALL_LAYERS = -1
CELLS_A_SEQUENCE = 1_024  # of the automatic context, so that all sequences can run at once
MAX_AUTO_SEQUENCE = 32_768  # a longer context than this only on request: most of its memory would lie idle
MIN_CELLS = 512
UNKNOWN_CELLS = 8_192  # where the file does not say what a cell costs
CACHE_SHARE_OF_MEMORY = 0.25  # of what is left beside the weights
GPU_RESERVE_BYTES = 512 * 1024 * 1024  # on each GPU: the driver's context, and what the estimate forgets
STORED_SHARE_OF_MEMORY, MOST_STORED_BYTES = 0.25, 2 * 1024**3  # for prefixes, of what is left beside all else
PROCESSOR_BATCH, GPU_BATCH = 512, 1_024  # tokens a step: bounds how long others wait for one step


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine is told. `gpu_layers` -1 is all; `cells` is the context that all sequences share.

    `stored_tokens` of prefixes may lie in memory beside it. `float_type` is what PyTorch unpacks weights to.
    `host_bytes` and `gpu_bytes` are the most that it takes, rather too high; of a model on both, each may be all of it.
    """

    gpu_layers: int
    cells: int
    sequence_tokens: int
    threads: int
    batch_tokens: int
    prefill_tokens: int
    stored_tokens: int
    why: tuple[str, ...]
    engine: EngineKind = "llama"
    float_type: FloatType = "float32"
    host_bytes: int = 0
    gpu_bytes: int = 0

    @property
    def offloads(self) -> bool:
        """Whether any layer runs on a GPU."""
        return self.gpu_layers != 0


def require_possible(settings: MinerSettings, machine: Machine) -> None:
    """Raise ConfigurationError for an engine that is not installed, or layers on a GPU that nothing here can run."""
    if settings.engine == "torch" and machine.torch_lacks:
        raise ConfigurationError(
            f"R3MES_ENGINE: found torch, but {', '.join(machine.torch_lacks)} is not installed", next_step=HOW_TO_TORCH
        )
    if settings.engine == "torch" or settings.n_gpu_layers in ("auto", 0) or machine.offload_supported:
        return
    raise ConfigurationError(
        f"R3MES_N_GPU_LAYERS: found {settings.n_gpu_layers}, but this build of llama.cpp can use no GPU here",
        next_step="unset it to run on the processor, or install llama-cpp-python built for the GPU and its driver",
    )


def require_even_blocks(settings: MinerSettings, structure: Structure) -> None:
    """Raise ConfigurationError when a quantised cache type does not divide the width of this model's heads."""
    if settings.flash_attention == "off":
        return  # llama.cpp wants it of flash attention alone
    widths = head_widths(structure)
    for name, type_name, width in zip(("K", "V"), (settings.kv_type_k, settings.kv_type_v), widths, strict=True):
        elements = CACHE_TYPES[type_name][2]
        if width % elements:
            raise ConfigurationError(
                f"R3MES_KV_TYPE_{name}: {type_name} has blocks of {elements}, but heads of this model {width} numbers",
                next_step="use f16, bf16 or f32",
            )


def decide(settings: MinerSettings, structure: Structure, weight_bytes: int, machine: Machine) -> Decision:
    """Decide for a model of `weight_bytes`; raises ConfigurationError for what cannot be honoured."""
    require_possible(settings, machine)
    require_even_blocks(settings, structure)
    why: list[str] = []
    threads = choose_threads(settings, machine, why)
    offload = machine.offload_supported and settings.n_gpu_layers != 0
    gpus = _used_gpus(settings, machine) if offload else ()
    batch = GPU_BATCH if offload else PROCESSOR_BATCH
    outputs = max(slot_count(settings.max_sequences) + 1, EMBED_TOKENS)  # one slot to pack prefixes with
    need = needs(settings, structure, batch, outputs)
    fixed = need.step + need.logits + (0 if offload else _aside(settings, structure, need, batch))
    rooms = [gpu.free_bytes - GPU_RESERVE_BYTES - fixed for gpu in gpus]
    room = sum(max(each, 0) for each in rooms) if gpus else machine.memory_bytes - fixed
    beside = weight_bytes + settings.max_sequences * need.state
    if gpus and beside > room:  # some layers stay on the processor, and their part of the cache with them
        room += machine.memory_bytes
    cells, sequence_tokens = choose_context(settings, structure, need, room - beside, why)
    loads = _layer_loads(structure, weight_bytes, cells * need.cell + settings.max_sequences * need.state)
    rooms = [each - cells * need.step_cell for each in rooms]
    layers = _layers(settings, loads, rooms, _shares(settings, gpus), machine, why)
    batch = GPU_BATCH if layers else PROCESSOR_BATCH
    batch = max(min(batch, cells), settings.max_sequences)
    left = machine.memory_bytes - fixed - beside - cells * (need.cell + need.step_cell)
    shares = not need.state and not structure.number("attention.sliding_window")
    stored = _stored(settings, need, left, why) if shares and not layers else 0
    size = int(fixed + beside + cells * (need.cell + need.step_cell))
    return Decision(
        gpu_layers=layers,
        cells=cells,
        sequence_tokens=sequence_tokens,
        threads=threads,
        batch_tokens=batch,
        prefill_tokens=max(batch // 4, 1),
        stored_tokens=stored,
        why=tuple(why),
        host_bytes=0 if layers == ALL_LAYERS else size + int(stored * need.cell),
        gpu_bytes=size if layers else 0,
    )


def no_room_beside(decision: Decision, served_bytes: int, now: Machine) -> str:
    """Return why a model cannot be loaded beside one that stays, empty where it can.

    `now` is the machine with that one loaded; its weights of `served_bytes`, read from a file, count there as free.
    """
    free = now.memory_bytes - served_bytes
    if decision.host_bytes > free:
        return f"{decision.host_bytes >> 20} MiB wanted in memory, {max(free, 0) >> 20} MiB free beside it"
    free = sum(max(gpu.free_bytes - GPU_RESERVE_BYTES, 0) for gpu in now.gpus)
    if decision.gpu_bytes > free:
        return f"{decision.gpu_bytes >> 20} MiB wanted on GPUs, {free >> 20} MiB free beside it"
    return ""


def _aside(settings: MinerSettings, structure: Structure, need: Needs, batch: int) -> int:
    """Return what the small context for prompts takes, which there is for attention alone, and for flash attention."""
    if need.state or structure.number("attention.sliding_window") or settings.flash_attention == "off":
        return 0
    return int(ASIDE_CELLS * need.cell) + need.step * ASIDE_BATCH // batch


def _used_gpus(settings: MinerSettings, machine: Machine) -> tuple[Gpu, ...]:
    """Return those that llama.cpp uses; raises ConfigurationError for more shares than there are GPUs."""
    if machine.gpus and len(settings.tensor_split) > len(machine.gpus):
        raise ConfigurationError(
            f"R3MES_TENSOR_SPLIT: found {len(settings.tensor_split)} shares, but {len(machine.gpus)} GPUs",
            next_step="give one share for each GPU, or unset it to divide by free memory",
        )
    return machine.gpus[:1] if settings.split_mode == "none" else machine.gpus


def _shares(settings: MinerSettings, gpus: tuple[Gpu, ...]) -> list[float]:
    """Return what part of the layers each GPU gets: as set, else by free memory as llama.cpp does it."""
    if settings.split_mode == "none" or not settings.tensor_split:
        return [float(gpu.free_bytes) for gpu in gpus]
    return [*settings.tensor_split, *[0.0] * (len(gpus) - len(settings.tensor_split))]


def _layer_loads(structure: Structure, weight_bytes: int, cache_bytes: float) -> list[float]:
    """Return what each layer takes with its part of the cache, and the output matrix as the last."""
    layers = structure.number("block_count") or 0
    if not layers:
        return [weight_bytes + cache_bytes]
    blocks: list[float] = [*structure.block_bytes]
    if len(blocks) != layers:
        blocks = [weight_bytes / (layers + 1)] * layers
    output = structure.output_bytes or weight_bytes / (layers + 1)
    return [*(block + cache_bytes / layers for block in blocks), output]


def choose_threads(settings: MinerSettings, machine: Machine, why: list[str]) -> int:
    """Return how many threads compute, and say why."""
    if settings.threads != "auto":
        why.append(f"{settings.threads} threads as set")
        return settings.threads
    limit = machine.processors if machine.quota is None else min(machine.processors, max(math.floor(machine.quota), 1))
    quota = "" if machine.quota is None else f", quota {machine.quota:g}"
    why.append(f"{limit} threads: {machine.processors} processors{quota}")
    return limit


def choose_context(
    settings: MinerSettings, structure: Structure, need: Needs, room: int, why: list[str]
) -> tuple[int, int]:
    """Return the cells of the cache for `room` bytes, and the most tokens of one sequence; say why."""
    trained = structure.number("context_length")
    if settings.n_ctx != "auto":
        why.append(f"{settings.n_ctx} cells as set")
        return settings.n_ctx, min(settings.n_ctx, trained or settings.n_ctx)
    if not trained or not (need.cell or need.state):
        why.append(f"{UNKNOWN_CELLS} cells: the file does not say what one costs")
        return UNKNOWN_CELLS, min(UNKNOWN_CELLS, trained or UNKNOWN_CELLS)
    wanted = max(min(trained, MAX_AUTO_SEQUENCE), settings.max_sequences * CELLS_A_SEQUENCE)
    # Without keys and values a cell is a number in our books: a state has the same size however long its sequence.
    affordable = int(max(room, 0) * CACHE_SHARE_OF_MEMORY / (need.cell + need.step_cell)) if need.cell else wanted
    cells = max(min(wanted, affordable), MIN_CELLS)
    reason = "as wanted" if cells == wanted else f"of {wanted} wanted, by memory"
    state = f", {need.state / 2**20:.1f} MiB a sequence" if need.state else ""
    why.append(f"{cells} cells {reason}: trained on {trained}, {need.cell / 1024:.1f} KiB a cell{state}")
    return cells, min(cells, trained)


def _stored(settings: MinerSettings, need: Needs, left: float, why: list[str]) -> int:
    """Return how many tokens of prefixes may lie in memory, of which `left` bytes are free beside all else.

    Only on the processor: a GPU passes over cells that nobody looks at in next to no time, and has to be waited for.
    """
    if not need.cell:
        return 0  # nobody knows what a token takes
    wanted = settings.prefix_cache_bytes
    size = min(max(left, 0) * STORED_SHARE_OF_MEMORY, MOST_STORED_BYTES) if wanted == "auto" else wanted
    tokens = int(size / need.cell)
    why.append(f"{tokens} tokens of prefixes in memory{'' if wanted == 'auto' else ' as set'}: {int(size) >> 20} MiB")
    return tokens


def _layers(
    settings: MinerSettings,
    loads: list[float],
    rooms: list[int],
    shares: list[float],
    machine: Machine,
    why: list[str],
) -> int:
    if not machine.offload_supported:
        why.append("no layer on a GPU: this build of llama.cpp finds none")
        return 0
    if settings.n_gpu_layers != "auto":
        why.append(f"{settings.n_gpu_layers} layers on the GPU as set")
        return settings.n_gpu_layers
    if not rooms:
        why.append("all layers on the GPU: its memory is not known")
        return ALL_LAYERS
    fitting = fitting_layers(loads, rooms, shares)
    free = " + ".join(f"{max(room, 0) >> 20}" for room in rooms)
    wanted = f"{round(sum(loads)) >> 20} MiB wanted, {free} MiB free"
    if fitting == len(loads):
        why.append(f"all layers on the GPU: {wanted}")
        return ALL_LAYERS
    why.append(f"{fitting} of {len(loads)} layers on the GPU, the output counted as one: {wanted}")
    return fitting
