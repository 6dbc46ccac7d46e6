"""Which library computes, and the limits that follow from what it can: one place for both."""

from __future__ import annotations

import importlib
from typing import Protocol

from services.miner.engine.abort import AbortSwitch
from services.miner.engine.backend import Backend
from services.miner.engine.llama_backend import LlamaBackend
from services.miner.engine.messages import Load, Loaded
from services.miner.engine.scheduler import Limits
from shared.errors import EngineError

# Computed tokens for which an unused prefix stays in the cache: there it costs all running sequences a little.
HORIZON = 2_048
GPU_HORIZON_FACTOR = 8
STORING_HORIZON = 0  # there and back takes as long as computing one token in a thousand, so nothing waits in the cache
GATHER_STEPS = 32


class LoadedBackend(Backend, Protocol):
    """A backend that can say what it has loaded."""

    def loaded(self) -> Loaded:
        """Describe the model for the API process."""
        ...


def open_backend(load: Load, switch: AbortSwitch) -> tuple[LoadedBackend, Limits]:
    """Load the model as `load` says; raises EngineError when the library refuses it, or is not installed."""
    return _torch(load, switch) if load.engine == "torch" else _llama(load, switch)


def _llama(load: Load, switch: AbortSwitch) -> tuple[LoadedBackend, Limits]:
    backend = LlamaBackend(load, f"/proc/self/fd/{load.descriptor}")
    backend.abort_while(switch.flag)
    horizon = HORIZON * GPU_HORIZON_FACTOR if load.gpu_layers else HORIZON
    return backend, Limits(
        sequences=load.sequences,
        cells=backend.cells,
        batch_tokens=load.batch_tokens,
        prefill_tokens=load.prefill_tokens,
        slots=backend.slots,
        horizon=STORING_HORIZON if backend.stored else horizon,
        stored=backend.stored,
        sharing=backend.sharing,
        apart=backend.on_processor,
        gather_steps=GATHER_STEPS if backend.gathers else 0,
    )


def _torch(load: Load, switch: AbortSwitch) -> tuple[LoadedBackend, Limits]:
    try:
        module = importlib.import_module("services.miner.engine.torch_backend")
    except ImportError as error:
        raise EngineError(f"PyTorch is not installed: {error}") from error
    backend = module.TorchBackend(load)
    backend.abort_while(switch.flag)
    return backend, Limits(
        sequences=load.sequences,
        cells=load.cells,
        batch_tokens=load.batch_tokens,
        prefill_tokens=load.prefill_tokens,
        slots=load.sequences,
        sharing=False,  # each sequence has a cache of its own
    )
