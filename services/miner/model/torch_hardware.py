"""What PyTorch needs for a model, which it unpacks: where it runs, as which numbers, with how much context. Pure.

An 8B file of 5 GB becomes 16 to 32 GB, so memory is judged before anything is loaded: a clear refusal, and no process
that the kernel kills.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.miner.engine.messages import FloatType
from services.miner.model.gguf import Structure
from services.miner.model.hardware import (
    ALL_LAYERS,
    GPU_RESERVE_BYTES,
    MIN_CELLS,
    Decision,
    choose_context,
    choose_threads,
)
from services.miner.model.memory import FLOAT, Needs, cell_numbers
from services.miner.model.probe import Machine
from services.miner.settings import MinerSettings
from shared.errors import ConfigurationError, EngineError

BATCH = 128  # tokens a step: slices are computed one after another, so more would only make others wait
LIBRARY_BYTES = 768 * 1024 * 1024  # PyTorch and transformers themselves
COPIES = 3  # of the largest tensor, as 32-bit numbers, while it is unpacked
BYTES: dict[FloatType, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class _Place:
    """Somewhere to run: `room` in bytes there, of which `loading` are taken by more than the model."""

    gpu_layers: int
    float_type: FloatType
    room: int
    loading: int
    name: str


def decide_torch(settings: MinerSettings, structure: Structure, machine: Machine) -> Decision:
    """Decide for PyTorch; raises EngineError when it does not fit, ConfigurationError for what it cannot do."""
    why: list[str] = []
    threads = choose_threads(settings, machine, why)
    wanted: list[str] = []
    for place in _places(settings, structure, machine):
        need = _needs(structure, place.float_type)
        fixed = structure.weights * BYTES[place.float_type] + need.step + place.loading
        if fixed + MIN_CELLS * (need.cell + need.step_cell) <= place.room:
            why.append(f"{place.float_type} {place.name}: {fixed >> 20} MiB wanted, {place.room >> 20} MiB free")
            cells, sequence_tokens = choose_context(settings, structure, need, place.room - fixed, why)
            taken = fixed + cells * (need.cell + need.step_cell)
            if taken > place.room:
                raise EngineError(f"R3MES_N_CTX: {cells} cells take PyTorch to {_gib(taken)} of {_gib(place.room)}")
            return Decision(
                gpu_layers=place.gpu_layers,
                cells=cells,
                sequence_tokens=sequence_tokens,
                threads=threads,
                batch_tokens=BATCH,
                prefill_tokens=BATCH,
                stored_tokens=0,
                why=tuple(why),
                engine="torch",
                float_type=place.float_type,
                host_bytes=0 if place.gpu_layers else int(taken),
                gpu_bytes=int(taken) if place.gpu_layers else 0,
            )
        wanted.append(f"{_gib(fixed)} {place.name} as {place.float_type}, {_gib(place.room)} are free")
    raise EngineError(
        f"PyTorch unpacks this model and needs {'; '.join(wanted)}",
        next_step="use a host with more memory, or a model that llama.cpp can load",
    )


def _places(settings: MinerSettings, structure: Structure, machine: Machine) -> list[_Place]:
    """Return where it may run, the best first."""
    asked = settings.n_gpu_layers
    if asked not in ("auto", 0):
        _require_whole(asked, structure, machine)
    loading = LIBRARY_BYTES + COPIES * structure.largest * FLOAT
    places: list[_Place] = []
    if machine.gpus and asked != 0:
        places.append(_Place(ALL_LAYERS, "bfloat16", machine.gpus[0].free_bytes, GPU_RESERVE_BYTES, "on a GPU"))
    if asked in ("auto", 0):
        places += [_Place(0, float_type, machine.memory_bytes, loading, "in memory") for float_type in BYTES]
    return places


def _require_whole(asked: int | str, structure: Structure, machine: Machine) -> None:
    if not machine.gpus:
        raise ConfigurationError(
            f"R3MES_N_GPU_LAYERS: found {asked}, but no GPU is there for PyTorch",
            next_step="unset it to run on the processor",
        )
    if asked != ALL_LAYERS and int(asked) < (structure.number("block_count") or 0):
        raise ConfigurationError(
            f"R3MES_N_GPU_LAYERS: found {asked}, but PyTorch has all layers on the GPU or none",
            next_step="use auto, 0 or -1",
        )


def _needs(structure: Structure, float_type: FloatType) -> Needs:
    heads = max(structure.numbers("attention.head_count"), default=0)
    return Needs(
        cell=cell_numbers(structure) * BYTES[float_type],
        step_cell=BATCH * heads * FLOAT,  # scores, where attention writes them down
        state=0,
        step=BATCH * FLOAT * (structure.words + 8 * (structure.number("feed_forward_length") or 0)),
        logits=0,
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
