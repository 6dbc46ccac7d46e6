"""From a checked file to a served model: decide, start the engine, wait for it, make vocabulary and template.

The engine loads first, so that a file that kills llama.cpp kills the engine and not this process.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from services.miner.engine.client import EngineClient
from services.miner.engine.messages import Load
from services.miner.metrics import MinerMetrics
from services.miner.model.chat_template import ChatTemplate
from services.miner.model.check import CheckedModel
from services.miner.model.gguf_types import CACHE_TYPES
from services.miner.model.hardware import Decision, decide
from services.miner.model.probe import Machine
from services.miner.model.vocabulary import Vocabulary
from services.miner.recovery import Recovery
from services.miner.served import ServedModel
from services.miner.settings import FLASH_ATTENTION, SPLIT_MODES, MinerSettings

# One thread loads all of them: glibc keeps freed memory for the thread that had asked for it, and with a vocabulary in
# each thread of a pool the process grows by one at nearly every restart of an engine.
_VOCABULARIES = ThreadPoolExecutor(1, thread_name_prefix="vocabulary")

_log = structlog.get_logger("miner.loading")


async def load(
    checked: CheckedModel, settings: MinerSettings, machine: Machine, metrics: MinerMetrics, recovery: Recovery
) -> ServedModel:
    """Return the loaded model; raises EngineError when llama.cpp refuses it, ConfigurationError for the hardware."""
    decision = decide(settings, checked.structure, checked.identity.size, machine)
    _log.info("hardware", gpu_layers=decision.gpu_layers, cells=decision.cells, why="; ".join(decision.why))
    started = time.monotonic()
    client = await EngineClient.start(
        load_message(checked, settings, decision),
        settings.log_level,
        metrics,
        recovery.blame,
        recovery.patience.watchdog,
    )
    try:
        vocabulary = await load_vocabulary(checked.descriptor)
        template = ChatTemplate(checked.structure.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
    except BaseException:
        await client.stop()
        raise
    metrics.loaded(time.monotonic() - started)
    loaded = client.loaded
    _log.info("loaded", model=checked.pin.model_name, description=loaded.description, seconds=round(loaded.seconds, 3))
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
    )


async def load_vocabulary(descriptor: int) -> Vocabulary:
    """Return the vocabulary of a checked file; raises EngineError when llama.cpp refuses it."""
    return await asyncio.get_running_loop().run_in_executor(_VOCABULARIES, Vocabulary, descriptor)


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
    )
