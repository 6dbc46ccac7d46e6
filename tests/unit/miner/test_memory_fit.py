"""What fits a GPU: each device by itself, with cache, logits, states and the buffers of a step."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.model.gguf import Structure
from services.miner.model.memory import needs
from services.miner.model.split import divide, fitting_layers
from services.miner.settings import MinerSettings, load_miner_settings
from shared.errors import ConfigurationError
from tests.unit.miner.test_hardware import EIGHT_B, GIB, decision, gpu, with_gpus

WORDS = 128_256
MAMBA = Structure(
    {
        "general.architecture": "mamba",
        "mamba.block_count": 64,
        "mamba.context_length": 1 << 20,
        "mamba.embedding_length": 2560,
        "mamba.feed_forward_length": 0,
        "mamba.attention.head_count": 0,
        "mamba.ssm.inner_size": 5120,
        "mamba.ssm.state_size": 16,
        "mamba.ssm.conv_kernel": 4,
    },
    640,
)
NARROW = dataclasses.replace(EIGHT_B, metadata={**EIGHT_B.metadata, "llama.attention.head_count": 51})  # heads of 80


def needs_of(structure: Structure, slots: int = 64, **settings: object) -> float:
    need = needs(MinerSettings.model_validate(settings), structure, 512, slots)
    return need.logits + need.step + 8192 * (need.cell + need.step_cell) + 16 * need.state


def test_layers_go_to_the_devices_in_order_by_their_shares_as_llama_cpp_does_it() -> None:
    assert divide([1.0] * 33, [1, 1]) == [17, 16]
    assert divide([1.0] * 33, [3, 1]) == [25, 8]
    assert divide([1.0] * 4, [0, 1, 0]) == [0, 4, 0]
    assert divide([1, 1, 1, 9], [1, 1]) == [2, 10]  # the output matrix goes with the last layers


def test_room_that_is_left_on_two_devices_does_not_hold_one_layer() -> None:
    assert fitting_layers([10.0] * 4, [20, 20], [1, 1]) == 4
    assert fitting_layers([10.0] * 4, [25, 15], [1, 1]) == 3  # of 40 in all
    assert fitting_layers([10.0], [5, 5], [1, 1]) == 0


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=12),
    rooms=st.lists(st.integers(-50, 400), min_size=1, max_size=4),
)
def test_what_is_said_to_fit_fits_every_device_and_one_layer_more_does_not(sizes: list[int], rooms: list[int]) -> None:
    shares = [room + 60 for room in rooms]

    def fits(count: int) -> bool:
        loads = divide([float(size) for size in sizes[len(sizes) - count :]], shares)
        return all(load <= max(room, 0) for load, room in zip(loads, rooms, strict=True))

    count = fitting_layers([float(size) for size in sizes], rooms, shares)
    assert count == 0 or fits(count)
    assert not any(fits(more) for more in range(count + 1, len(sizes) + 1))


def test_a_small_second_gpu_gets_a_small_part() -> None:
    assert decision(with_gpus(gpu(12), gpu(3))).gpu_layers == -1


def test_shares_that_give_a_gpu_more_than_it_holds_leave_layers_on_the_processor() -> None:
    gpus = with_gpus(gpu(12), gpu(3))
    assert 0 < decision(gpus, R3MES_TENSOR_SPLIT="1,1").gpu_layers < 33
    assert decision(gpus, R3MES_TENSOR_SPLIT="1,0").gpu_layers == -1


def test_without_a_split_the_first_gpu_holds_all_or_not_all() -> None:
    gpus = with_gpus(gpu(4), gpu(24))
    assert decision(gpus).gpu_layers == -1
    assert 0 < decision(gpus, R3MES_SPLIT_MODE="none").gpu_layers < 33


def test_more_shares_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="R3MES_TENSOR_SPLIT: found 3 shares, but 2 GPUs"):
        decision(with_gpus(gpu(12), gpu(12)), R3MES_TENSOR_SPLIT="1,1,1")


def test_a_gpu_that_holds_a_part_leaves_the_context_the_memory_of_the_host() -> None:
    assert decision(with_gpus(gpu(3))).cells > 8192


def test_a_row_of_logits_for_each_slot_is_counted() -> None:
    with_words = dataclasses.replace(EIGHT_B, words=WORDS)
    assert needs_of(with_words) - needs_of(EIGHT_B) == 64 * WORDS * 4
    just = with_gpus(dataclasses.replace(gpu(1), free_bytes=7_500_000_000))
    many = {"R3MES_MAX_SEQUENCES": 64, "R3MES_N_CTX": 9_000}
    assert decision(just, **many).gpu_layers == -1
    assert decision(just, dataclasses.replace(EIGHT_B, words=1_000_000), **many).gpu_layers != -1


def test_a_longer_context_leaves_fewer_layers_room_on_the_gpu() -> None:
    layers = [decision(with_gpus(gpu(7)), R3MES_N_CTX=cells).gpu_layers % 34 for cells in (1024, 16384, 65536)]
    assert all(shorter > longer for shorter, longer in pairwise(layers))


def test_attention_that_writes_its_scores_down_takes_more_than_flash_attention() -> None:
    assert needs_of(EIGHT_B, R3MES_FLASH_ATTN="off") - needs_of(EIGHT_B) == 8192 * 512 * 32 * 4


def test_a_model_without_attention_has_states_of_one_size_and_as_many_cells_as_wanted() -> None:
    need = needs(MinerSettings.model_validate({}), MAMBA, 512, 64)
    assert need.cell == 0
    assert need.state == 64 * 4 * (3 * 5120 + 16 * 5120)
    found = decision(structure=MAMBA)
    assert found.cells == 32_768
    assert any("MiB a sequence" in reason for reason in found.why)


def test_only_layers_without_heads_have_a_state() -> None:
    hybrid = {**MAMBA.metadata, "mamba.attention.head_count": 32, "mamba.attention.head_count_kv": (0, 8) * 32}
    need = needs(MinerSettings.model_validate({}), Structure(hybrid, 640), 512, 64)
    assert need.state == 32 * 4 * (3 * 5120 + 16 * 5120)
    assert need.cell == 32 * 8 * 80 * 2 * 2


@pytest.mark.parametrize(("name", "type_name"), [("K", "q8_0"), ("V", "q4_0")])
def test_a_cache_type_whose_blocks_do_not_divide_the_heads_is_refused(name: str, type_name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"R3MES_KV_TYPE_{name}: {type_name} has blocks of 32, but heads of .* 80"
    ):
        decision(structure=NARROW, **{f"R3MES_KV_TYPE_{name}": type_name})


@pytest.mark.parametrize("type_name", ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
def test_a_quantised_value_cache_without_flash_attention_is_refused(
    monkeypatch: pytest.MonkeyPatch, type_name: str
) -> None:
    monkeypatch.setenv("R3MES_FLASH_ATTN", "off")
    monkeypatch.setenv("R3MES_KV_TYPE_V", type_name)
    with pytest.raises(ConfigurationError, match=f"R3MES_KV_TYPE_V={type_name} needs flash attention"):
        load_miner_settings()
    monkeypatch.setenv("R3MES_FLASH_ATTN", "auto")
    assert load_miner_settings().kv_type_v == type_name


def test_a_gpu_that_holds_nothing_gets_nothing() -> None:
    assert decision(with_gpus(dataclasses.replace(gpu(1), free_bytes=GIB // 4))).gpu_layers == 0
