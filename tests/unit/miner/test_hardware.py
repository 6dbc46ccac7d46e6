"""One decision about layers, context and threads, with its reasons."""

from __future__ import annotations

import dataclasses

import pytest

from services.miner.model.gguf import Structure
from services.miner.model.hardware import Decision, decide, no_room_beside
from services.miner.model.probe import Gpu, Machine, probe_machine, visible_gpus
from services.miner.settings import MinerSettings, load_miner_settings
from shared.errors import ConfigurationError

GIB = 1024**3
# Llama-3-8B's numbers: 32 layers, 8 key-value heads of 128, trained on 8192 tokens.
EIGHT_B = Structure(
    {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 8192,
        "llama.embedding_length": 4096,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    },
    291,
)
WEIGHTS = 4_920_000_000
CELL = 128 * 1024  # bytes, 16-bit keys and values
PROCESSOR = Machine(processors=8, quota=None, memory_bytes=16 * GIB, gpus=(), offload_supported=False)

SMALL = dataclasses.replace(PROCESSOR, memory_bytes=10 * GIB)


def gpu(gib: int) -> Gpu:
    return Gpu("Test GPU", gib * GIB, gib * GIB)


def decision(machine: Machine = PROCESSOR, structure: Structure = EIGHT_B, **settings: object) -> Decision:
    return decide(MinerSettings.model_validate(settings), structure, WEIGHTS, machine)


def with_gpus(*gpus: Gpu) -> Machine:
    return dataclasses.replace(PROCESSOR, gpus=gpus, offload_supported=True)


@pytest.mark.parametrize(
    ("processors", "quota", "threads"), [(8, None, 8), (8, 2.0, 2), (8, 2.5, 2), (8, 0.5, 1), (2, 6.0, 2)]
)
def test_threads_are_what_affinity_and_quota_allow(processors: int, quota: float | None, threads: int) -> None:
    machine = dataclasses.replace(PROCESSOR, processors=processors, quota=quota)
    assert decision(machine).threads == threads


def test_the_context_holds_all_sequences_where_memory_allows() -> None:
    found = decision(dataclasses.replace(PROCESSOR, memory_bytes=64 * GIB))
    assert found.cells == 16 * 1024
    assert found.sequence_tokens == 8192


def test_the_context_shrinks_to_a_quarter_of_the_memory_that_the_weights_leave() -> None:
    found = decision(SMALL)
    assert found.cells == pytest.approx(
        (10 * GIB - WEIGHTS) / 4 / CELL, rel=0.1
    )  # less what steps and prompts aside take
    assert found.sequence_tokens == 8192
    assert any("by memory" in reason for reason in found.why)


def test_a_host_with_too_little_memory_gets_a_small_context_and_no_negative_one() -> None:
    found = decision(dataclasses.replace(PROCESSOR, memory_bytes=4 * GIB))
    assert 0 < found.cells <= 512


def test_a_context_that_was_set_stands_and_one_request_never_gets_more_than_the_training() -> None:
    found = decision(R3MES_N_CTX=100_000)
    assert (found.cells, found.sequence_tokens) == (100_000, 8192)
    assert decision(R3MES_N_CTX=1000).sequence_tokens == 1000


def test_a_smaller_cache_type_makes_room_for_more_cells() -> None:
    smaller = {"R3MES_KV_TYPE_K": "q8_0", "R3MES_KV_TYPE_V": "q8_0", "R3MES_MAX_SEQUENCES": 64}
    found = decision(SMALL, **smaller)
    assert found.cells == pytest.approx(decision(SMALL).cells * 32 / 17, rel=0.05)


def test_memory_that_is_left_keeps_prefixes_but_not_more_than_two_gib() -> None:
    assert decision(dataclasses.replace(PROCESSOR, memory_bytes=256 * GIB)).stored_tokens == 2 * GIB // CELL
    small = decision(SMALL)
    left = SMALL.memory_bytes - WEIGHTS - small.cells * CELL
    assert left / 4.5 < small.stored_tokens * CELL <= left / 4
    assert any("tokens of prefixes in memory" in why for why in small.why)
    assert decision(dataclasses.replace(PROCESSOR, memory_bytes=2 * GIB)).stored_tokens == 0


def test_memory_for_prefixes_that_was_set_stands_and_0_keeps_none() -> None:
    assert decision(R3MES_PREFIX_CACHE_BYTES=GIB).stored_tokens == GIB // CELL
    assert decision(R3MES_PREFIX_CACHE_BYTES=0).stored_tokens == 0


def test_a_model_with_a_sliding_window_shares_no_prefixes_and_says_nothing_of_them() -> None:
    windowed = dataclasses.replace(EIGHT_B, metadata={**EIGHT_B.metadata, "llama.attention.sliding_window": 4096})
    found = decision(structure=windowed, R3MES_PREFIX_CACHE_BYTES=GIB)
    assert found.stored_tokens == 0
    assert not any("prefixes" in why for why in found.why)


def test_a_gpu_keeps_prefixes_in_its_cache_alone() -> None:
    assert decision(with_gpus(gpu(80)), R3MES_PREFIX_CACHE_BYTES=GIB).stored_tokens == 0


def test_a_file_without_numbers_still_gets_a_context() -> None:
    assert decision(structure=Structure({}, 0)).cells == 8192


def test_a_batch_has_room_for_every_sequence() -> None:
    found = decision(R3MES_N_CTX=100, R3MES_MAX_SEQUENCES=200)
    assert found.batch_tokens >= 200


def test_all_layers_go_to_a_gpu_that_holds_them() -> None:
    found = decision(with_gpus(gpu(24)))
    assert found.gpu_layers == -1
    assert found.offloads
    assert found.batch_tokens == 1024


def test_a_small_gpu_gets_the_layers_that_fit() -> None:
    assert 0 < decision(with_gpus(gpu(4))).gpu_layers < 32


def test_two_gpus_hold_together_what_one_does_not() -> None:
    assert decision(with_gpus(gpu(5))).gpu_layers != -1
    assert decision(with_gpus(gpu(5), gpu(5))).gpu_layers == -1


def test_no_gpu_is_used_where_none_was_wanted() -> None:
    assert decision(with_gpus(gpu(24)), R3MES_N_GPU_LAYERS=0).gpu_layers == 0


@pytest.mark.parametrize("layers", [-1, 1, 99])
def test_offload_that_was_asked_for_and_is_impossible_is_an_error(layers: int) -> None:
    with pytest.raises(ConfigurationError, match="R3MES_N_GPU_LAYERS"):
        decision(R3MES_N_GPU_LAYERS=layers)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        (None, "abc"),
        ("", ""),
        ("-1", ""),
        ("0,2", "ac"),
        (" 2 , 0", "ca"),
        ("1,7,0", "b"),
        ("GPU-b", "b"),
        ("GPU-", ""),
        ("GPU-c1,0", "ca"),
    ],
)
def test_gpus_that_cuda_does_not_use_are_not_counted(setting: str | None, wanted: str) -> None:
    gpus = [Gpu(name, GIB, GIB, f"GPU-{name}1") for name in "abc"]
    assert "".join(each.name for each in visible_gpus(gpus, setting)) == wanted


def test_this_machine_can_be_looked_at() -> None:
    machine = probe_machine()
    assert machine.processors >= 1
    assert machine.memory_bytes > 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("R3MES_ENGINE", "jax", "R3MES_ENGINE"),
        ("R3MES_IDLE_UNLOAD_SECONDS", "-1", "R3MES_IDLE_UNLOAD_SECONDS"),
        ("R3MES_CONTEXT_OVERFLOW", "slide", "R3MES_CONTEXT_OVERFLOW"),
        ("R3MES_MAX_SEQUENCES", "300", "R3MES_MAX_SEQUENCES"),
        ("R3MES_MAX_SEQUENCES", "0", "R3MES_MAX_SEQUENCES"),
        ("R3MES_KV_TYPE_K", "int3", "R3MES_KV_TYPE_K"),
        ("R3MES_THREADS", "0", "R3MES_THREADS"),
        ("R3MES_THREADS", "many", "R3MES_THREADS"),
        ("R3MES_N_GPU_LAYERS", "-2", "R3MES_N_GPU_LAYERS"),
        ("R3MES_TENSOR_SPLIT", "1,x", "R3MES_TENSOR_SPLIT"),
        ("R3MES_TENSOR_SPLIT", "0,0", "R3MES_TENSOR_SPLIT"),
        ("R3MES_REQUEST_SECONDS", "0", "R3MES_REQUEST_SECONDS"),
        ("R3MES_LISTEN", "nowhere", "R3MES_LISTEN"),
        ("R3MES_MAX_SEQUENCE", "3", "R3MES_MAX_SEQUENCE"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        load_miner_settings()
    assert words in error.value.message


def test_settings_come_in_their_own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "R3MES_THREADS": "3",
        "R3MES_N_GPU_LAYERS": "-1",
        "R3MES_TENSOR_SPLIT": "3, 1",
        "R3MES_API_KEYS": "a,b",
        "R3MES_N_CTX": "",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_miner_settings()
    assert (settings.threads, settings.n_gpu_layers, settings.n_ctx) == (3, -1, "auto")
    assert settings.tensor_split == (3.0, 1.0)
    assert settings.keys == ("a", "b")


def test_a_second_model_needs_room_beside_the_first_whose_weights_count_as_free() -> None:
    wanted = decision(dataclasses.replace(PROCESSOR, memory_bytes=16 * GIB), R3MES_PREFIX_CACHE_BYTES=0)
    assert WEIGHTS < wanted.host_bytes < 10 * GIB
    assert wanted.gpu_bytes == 0
    served = 4 * GIB
    enough = dataclasses.replace(PROCESSOR, memory_bytes=wanted.host_bytes + served)
    assert no_room_beside(wanted, served, enough) == ""
    assert "MiB free beside it" in no_room_beside(
        wanted, served, dataclasses.replace(enough, memory_bytes=enough.memory_bytes - 1)
    )


def test_prefixes_in_memory_count_for_a_second_model() -> None:
    without, with_some = (decision(R3MES_PREFIX_CACHE_BYTES=size).host_bytes for size in (0, GIB))
    assert with_some - without == pytest.approx(GIB, rel=0.01)


def test_a_second_model_on_a_gpu_needs_room_there() -> None:
    wanted = decision(with_gpus(gpu(24)))
    assert wanted.host_bytes == 0
    assert no_room_beside(wanted, 0, with_gpus(gpu(24))) == ""
    assert "on GPUs" in no_room_beside(wanted, 0, with_gpus(gpu(5)))


def test_a_model_on_both_needs_room_on_both() -> None:
    wanted = decision(with_gpus(gpu(4)))
    assert wanted.gpu_layers > 0
    assert wanted.host_bytes == wanted.gpu_bytes > WEIGHTS
