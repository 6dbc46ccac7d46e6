"""What the environment says about GPUs and cache is what llama.cpp is given, and it takes the memory that we expect."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from services.miner.engine.aside import ASIDE_CELLS
from services.miner.engine.backend import GpuGoneError
from services.miner.engine.llama_backend import LlamaBackend, llama
from services.miner.engine.prefix_cache import slot_count
from services.miner.loading import load_message
from services.miner.model.check import CheckedModel
from services.miner.model.gguf import read_structure
from services.miner.model.hardware import decide
from services.miner.model.memory import needs
from services.miner.model.probe import Gpu, probe_machine
from services.miner.settings import MinerSettings, load_miner_settings
from shared.genesis.types import ModelPin
from shared.store.records import StatIdentity
from tests.integration.miner.engine_stand import F16, llama_lines, loaded_backend
from tests.integration.miner.stand import model_file
from tests.support.tiny_models import ARCHITECTURES, write_tiny

MIB = 1024 * 1024
PIN = ModelPin("Smol", "smol.gguf", "https://example.com/smol.gguf", "0" * 64, 0.1, "", None)
CELLS, SEQUENCES, BATCH = 8192, 16, 512
Structures = dict[str, ctypes.Structure]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Structures:
    """The parameters that llama.cpp was given for the model and the context, by name."""
    seen: Structures = {}

    def record(name: str, function: str) -> None:
        real: Callable[..., object] = getattr(llama, function)

        def recording(first: object, parameters: ctypes.Structure) -> object:
            seen[name] = parameters
            return real(first, parameters)

        monkeypatch.setattr(llama, function, recording)

    record("model", "llama_model_load_from_file")
    record("context", "llama_init_from_model")
    return seen


def load_with_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Go the way of the miner from settings to a context; llama.cpp without a GPU takes no notice of layers."""
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_miner_settings()
    gpu = Gpu("Test GPU", 24 * 1024 * MIB, 24 * 1024 * MIB)
    machine = dataclasses.replace(probe_machine(), offload_supported=True, gpus=(gpu, gpu))
    descriptor = os.open(model_file(), os.O_RDONLY)
    try:
        identity = StatIdentity.of(os.fstat(descriptor))
        checked = CheckedModel(PIN, descriptor, identity, read_structure(descriptor), rehashed=False)
        decision = decide(settings, checked.structure, identity.size, machine)
        LlamaBackend(load_message(checked, settings, decision), f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def fields(structure: ctypes.Structure, names: Sequence[str]) -> list[int]:
    return [int(getattr(structure, name)) for name in names]


def test_what_is_set_reaches_llama_cpp(monkeypatch: pytest.MonkeyPatch, given: Structures) -> None:
    environment = {
        "R3MES_N_GPU_LAYERS": "7",
        "R3MES_SPLIT_MODE": "row",
        "R3MES_TENSOR_SPLIT": "3,1",
        "R3MES_FLASH_ATTN": "on",
        "R3MES_KV_TYPE_K": "q8_0",
        "R3MES_KV_TYPE_V": "q4_0",
        "R3MES_N_CTX": "1024",
        "R3MES_THREADS": "1",
    }
    load_with_environment(monkeypatch, environment)
    assert fields(given["model"], ("n_gpu_layers", "split_mode")) == [7, llama.LLAMA_SPLIT_MODE_ROW]
    assert list(given["model"].tensor_split[: llama.llama_max_devices()])[:3] == [3.0, 1.0, 0.0]
    names = ("flash_attn_type", "type_k", "type_v", "n_ctx", "n_threads", "n_threads_batch")
    wanted = [llama.LLAMA_FLASH_ATTN_TYPE_ENABLED, llama.GGML_TYPE_Q8_0, llama.GGML_TYPE_Q4_0, 1024, 1, 1]
    assert fields(given["context"], names) == wanted


def test_what_is_not_set_is_left_to_llama_cpp_or_decided(monkeypatch: pytest.MonkeyPatch, given: Structures) -> None:
    load_with_environment(monkeypatch, {"R3MES_THREADS": "1"})
    assert fields(given["model"], ("n_gpu_layers", "split_mode")) == [-1, llama.LLAMA_SPLIT_MODE_LAYER]
    assert not given["model"].tensor_split
    names = ("flash_attn_type", "type_k", "type_v")
    assert fields(given["context"], names) == [
        llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
        llama.GGML_TYPE_F16,
        llama.GGML_TYPE_F16,
    ]


def test_layers_for_a_gpu_that_is_not_there_are_an_error_and_no_silent_run_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, given: Structures
) -> None:
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(GpuGoneError, match="finds none"), loaded_backend(model_file(), gpu_layers=-1):
        pass
    assert not given


@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("kind", ["attention", *sorted(ARCHITECTURES)])
def test_llama_cpp_takes_the_memory_that_the_decision_counts(kind: str, flash: str, tmp_path: Path) -> None:
    file = model_file()
    if kind != "attention":
        file = tmp_path / "tiny.gguf"
        write_tiny(kind, model_file(), file)
    with file.open("rb") as opened:
        structure = read_structure(opened.fileno())
    settings = MinerSettings.model_validate({"R3MES_FLASH_ATTN": flash})
    with (
        llama_lines() as lines,
        loaded_backend(
            file,
            cells=CELLS,
            sequences=SEQUENCES,
            batch_tokens=BATCH,
            cache_type=F16,
            flash_attention=int(flash == "on"),
        ) as backend,
    ):
        slots = backend.slots + backend.sharing  # one more to take cells out and put them back
        aside = backend._aside is not None
        assert aside == (kind == "attention" and flash == "on")
    taken = dict.fromkeys(("KV", "RS", "output", "compute"), 0.0)
    for line in lines:
        if found := re.search(r"(KV|RS|output|compute) buffer size = +([\d.]+) MiB", line):
            taken[found[1]] += float(found[2]) * MIB
    cells = CELLS + ASIDE_CELLS * aside
    need = needs(settings, structure, BATCH, slots + 2 * aside)
    assert taken["KV"] == pytest.approx(cells * need.cell, abs=0.01 * MIB)
    assert taken["RS"] == pytest.approx(SEQUENCES * need.state, abs=0.01 * MIB)
    assert taken["output"] == pytest.approx(need.logits, abs=0.01 * MIB)
    most = needs(settings, structure, BATCH, slot_count(SEQUENCES))
    assert 0 < taken["compute"] <= most.step * (1 + aside) + most.logits + cells * most.step_cell
