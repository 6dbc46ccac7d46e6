"""Where PyTorch may unpack a model, as which numbers, and when it must not even begin."""

from __future__ import annotations

import dataclasses

import pytest

from services.miner.model.gguf import Structure
from services.miner.model.hardware import Decision, require_possible
from services.miner.model.probe import Gpu, Machine
from services.miner.model.torch_hardware import decide_torch
from services.miner.settings import MinerSettings
from shared.errors import ConfigurationError, EngineError

GIB = 1024**3
EIGHT_B = Structure(
    {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 8192,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    },
    291,
    words=128_256,
    weights=8_030_000_000,
    largest=128_256 * 4096,
)
MACHINE = Machine(processors=8, quota=None, memory_bytes=64 * GIB, gpus=(), offload_supported=False)


def decision(memory: int, *gpus: int, **settings: object) -> Decision:
    machine = dataclasses.replace(
        MACHINE, memory_bytes=memory * GIB, gpus=tuple(Gpu("Test GPU", gib * GIB, gib * GIB) for gib in gpus)
    )
    return decide_torch(MinerSettings.model_validate(settings), EIGHT_B, machine)


def test_weights_become_32_bits_where_there_is_room() -> None:
    found = decision(64)
    assert (found.engine, found.float_type, found.gpu_layers) == ("torch", "float32", 0)
    assert found.cells >= 8192
    assert found.sequence_tokens == 8192


def test_weights_become_16_bits_where_32_do_not_fit() -> None:
    assert decision(32).float_type == "bfloat16"


def test_a_model_that_does_not_fit_unpacked_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        EngineError, match=r"36\.\d GiB in memory as float32, 8\.0 .*21\.\d GiB in memory as b"
    ) as found:
        decision(8)
    assert "more memory" in found.value.next_step


def test_what_the_cache_takes_counts_too() -> None:
    with pytest.raises(EngineError, match="R3MES_N_CTX: 1000000 cells"):
        decision(64, R3MES_N_CTX=1_000_000)


def test_the_largest_tensor_needs_room_while_it_is_unpacked() -> None:
    small = dataclasses.replace(EIGHT_B, largest=1)
    settings = MinerSettings.model_validate({})
    machine = dataclasses.replace(MACHINE, memory_bytes=21 * GIB)
    assert decide_torch(settings, small, machine).float_type == "bfloat16"
    with pytest.raises(EngineError):
        decide_torch(settings, EIGHT_B, machine)


def test_a_gpu_with_room_comes_first() -> None:
    found = decision(64, 24)
    assert (found.gpu_layers, found.float_type) == (-1, "bfloat16")
    assert found.offloads


def test_a_gpu_without_room_leaves_the_processor() -> None:
    assert decision(64, 12).gpu_layers == 0


def test_a_gpu_that_was_asked_for_is_never_replaced_by_the_processor() -> None:
    with pytest.raises(EngineError, match="on a GPU"):
        decision(64, 12, R3MES_N_GPU_LAYERS=-1)
    with pytest.raises(ConfigurationError, match="no GPU is there"):
        decision(64, R3MES_N_GPU_LAYERS=-1)


def test_some_layers_on_a_gpu_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="all layers on the GPU or none"):
        decision(64, 24, R3MES_N_GPU_LAYERS=10)
    assert decision(64, 24, R3MES_N_GPU_LAYERS=32).gpu_layers == -1


def test_without_layers_on_a_gpu_none_is_used() -> None:
    assert decision(64, 24, R3MES_N_GPU_LAYERS=0).gpu_layers == 0


def test_torch_that_is_not_installed_stops_the_start_with_what_to_do() -> None:
    machine = dataclasses.replace(MACHINE, torch_lacks=("torch", "accelerate"))
    require_possible(MinerSettings.model_validate({}), machine)
    with pytest.raises(ConfigurationError, match="torch, accelerate is not installed") as found:
        require_possible(MinerSettings.model_validate({"R3MES_ENGINE": "torch"}), machine)
    assert "miner-torch" in found.value.next_step
