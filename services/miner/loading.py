"""From a checked file to a served model: decide, start the engine, wait for it, make vocabulary and template.

The engine loads first, so that a file that kills llama.cpp kills the engine and not this process.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog

from services.miner.engine.backend import GpuGoneError
from services.miner.engine.client import EngineClient
from services.miner.engine.generation import EngineGoneError
from services.miner.engine.messages import Load
from services.miner.metrics import MinerMetrics
from services.miner.model.chat_template import ChatTemplate, ChatTemplateError
from services.miner.model.check import CheckedModel
from services.miner.model.gguf_types import CACHE_TYPES
from services.miner.model.hardware import HOW_TO_TORCH, Decision, decide, no_room_beside
from services.miner.model.probe import Machine
from services.miner.model.torch_hardware import decide_torch
from services.miner.model.vocabulary import Tokeniser, open_vocabulary
from services.miner.recovery import Recovery
from services.miner.served import ServedModel
from services.miner.settings import FLASH_ATTENTION, SPLIT_MODES, MinerSettings
from shared.errors import EngineError, R3mesError

# One thread loads all of them: glibc keeps freed memory for the thread that had asked for it, and with a vocabulary in
# each thread of a pool the process grows by one at nearly every restart of an engine.
_VOCABULARIES = ThreadPoolExecutor(1, thread_name_prefix="vocabulary")

_log = structlog.get_logger("miner.loading")


async def load(
    checked: CheckedModel, settings: MinerSettings, machine: Machine, metrics: MinerMetrics, recovery: Recovery
) -> ServedModel:
    """Return the loaded model; raises EngineError when it cannot be loaded, ConfigurationError for the hardware.

    GpuGoneError, of the first kind, when the machine has no GPU any more, whatever the file.

    A file that llama.cpp refuses is given to PyTorch, where that is installed and its memory suffices.
    """
    start = _Start(checked, settings, metrics, recovery)
    if settings.engine == "torch":
        return await start.engine(decide_torch(settings, checked.structure, machine), "R3MES_ENGINE=torch")
    try:
        return await start.engine(decide(settings, checked.structure, checked.identity.size, machine))
    except (EngineGoneError, GpuGoneError, ChatTemplateError):
        raise  # nothing is said about the file, or PyTorch would not help
    except EngineError as error:
        if settings.engine == "llama":
            raise
        refusal = error.message
    if machine.torch_lacks:
        lacks = ", ".join(machine.torch_lacks)
        raise EngineError(f"{refusal}; for the PyTorch fallback {lacks} is not installed: {HOW_TO_TORCH}")
    try:
        return await start.engine(decide_torch(settings, checked.structure, machine), refusal, fell_back=True)
    except EngineGoneError:
        raise
    except EngineError as error:
        raise EngineError(f"{refusal}; then: {error.message}", next_step=error.next_step) from error


@dataclass(frozen=True, slots=True)
class _Start:
    """One load of one file, by one engine or the other."""

    checked: CheckedModel
    settings: MinerSettings
    metrics: MinerMetrics
    recovery: Recovery

    async def engine(self, decision: Decision, reason: str = "", *, fell_back: bool = False) -> ServedModel:
        """Start it as decided; `reason` says why it is not llama.cpp."""
        checked = self.checked
        _log.info(
            "hardware",
            engine=decision.engine,
            gpu_layers=decision.gpu_layers,
            cells=decision.cells,
            why="; ".join(decision.why),
        )
        if fell_back:
            _log.warning("llama.cpp refuses the file, PyTorch loads it", model=checked.pin.model_name, reason=reason)
        started = time.monotonic()
        client = await EngineClient.start(
            load_message(checked, self.settings, decision),
            self.settings.log_level,
            self.metrics,
            self.recovery.blame,
            self.recovery.patience.watchdog,
        )
        try:
            vocabulary = await load_vocabulary(checked.descriptor, torch=decision.engine == "torch")
            template = ChatTemplate(checked.structure.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
        except BaseException:
            await client.stop()
            raise
        self.metrics.loaded(time.monotonic() - started)
        loaded = client.loaded
        seconds = round(loaded.seconds, 3)
        _log.info("loaded", model=checked.pin.model_name, description=loaded.description, seconds=seconds)
        return ServedModel(
            pin=checked.pin,
            identity=checked.identity,
            loaded=loaded,
            decision=decision,
            quantization=checked.structure.quantization,
            sequence_tokens=min(loaded.cells, decision.sequence_tokens, loaded.training_tokens or loaded.cells),
            vocabulary=vocabulary,
            template=template,
            client=client,
            loaded_at=int(time.time()),
            engine_reason=reason,
            fell_back=fell_back,
        )


def no_room_for_both(
    checked: CheckedModel, served: ServedModel, settings: MinerSettings, machine: Machine, now: Machine
) -> str:
    """Return why a file cannot be loaded while `served` stays, empty where it can.

    `machine` is as it was without any model, so that the next one gets as much context as after a start.
    """
    try:
        if settings.engine == "torch":
            decision = decide_torch(settings, checked.structure, machine)
        else:
            decision = decide(settings, checked.structure, checked.identity.size, machine)
    except R3mesError as error:
        return error.message
    return no_room_beside(decision, served.loaded.weight_bytes, now)


async def load_vocabulary(descriptor: int, *, torch: bool = False) -> Tokeniser:
    """Return the vocabulary of a checked file; raises EngineError when nobody can read it."""
    read = partial(open_vocabulary, descriptor, torch=torch)
    return await asyncio.get_running_loop().run_in_executor(_VOCABULARIES, read)


def load_message(checked: CheckedModel, settings: MinerSettings, decision: Decision) -> Load:
    """Say to the engine what was set and decided."""
    return Load(
        descriptor=checked.descriptor,
        identity=checked.identity,
        cells=decision.cells,
        sequences=settings.max_sequences,
        batch_tokens=decision.batch_tokens,
        prefill_tokens=decision.prefill_tokens,
        gpu_layers=decision.gpu_layers,
        threads=decision.threads,
        flash_attention=FLASH_ATTENTION[settings.flash_attention],
        type_k=CACHE_TYPES[settings.kv_type_k][0],
        type_v=CACHE_TYPES[settings.kv_type_v][0],
        split_mode=SPLIT_MODES[settings.split_mode],
        tensor_split=settings.tensor_split,
        stored=decision.stored_tokens,
        engine=decision.engine,
        float_type=decision.float_type,
    )
