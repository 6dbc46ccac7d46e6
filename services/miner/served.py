"""A model that is being served: everything that a request needs to know about it, until it is swapped or lost."""

from __future__ import annotations

from dataclasses import dataclass

from services.miner.engine.client import EngineClient
from services.miner.engine.messages import Loaded
from services.miner.model.chat_template import ChatTemplate
from services.miner.model.hardware import Decision
from services.miner.model.vocabulary import Tokeniser
from shared.genesis import ModelPin
from shared.store.records import StatIdentity

ENGINE_NAMES = {"llama": "llama.cpp", "torch": "torch"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model with its engine. `sequence_tokens` is the longest prompt plus answer of one request.

    `engine_reason` says why it is not llama.cpp that serves it, and is empty when it is; `fell_back`: since it refused.
    """

    pin: ModelPin
    identity: StatIdentity
    loaded: Loaded
    decision: Decision
    quantization: str
    sequence_tokens: int
    vocabulary: Tokeniser
    template: ChatTemplate
    client: EngineClient
    loaded_at: int
    engine_reason: str = ""
    fell_back: bool = False

    @property
    def engine(self) -> str:
        """The library that computes, as metrics and `/v1/models` name it."""
        return ENGINE_NAMES[self.decision.engine]

    @property
    def name(self) -> str:
        """The id everywhere: `model` in requests, answers, metrics."""
        return self.pin.model_name

    @property
    def fingerprint(self) -> str:
        """What `system_fingerprint` says: the digest that gives these answers."""
        return f"r3mes-{self.pin.sha256[:12]}"

    def describe(self) -> dict[str, object]:
        """Return what `/v1/models` shows beyond OpenAI's own fields."""
        return {
            "sha256": self.pin.sha256,
            "file_name": self.pin.file_name,
            "engine": self.engine,
            "engine_reason": self.engine_reason,
            "description": self.loaded.description,
            "quantization": self.quantization,
            "parameters": self.loaded.parameters,
            "weight_bytes": self.loaded.weight_bytes,
            "memory": self.loaded.memory,
            "context_tokens": self.sequence_tokens,
            "training_tokens": self.loaded.training_tokens,
            "hardware": {
                "gpu_layers": self.decision.gpu_layers,
                "gpu_offload_active": self.decision.offloads,
                "cells": self.loaded.cells,
                "threads": self.decision.threads,
                "why": list(self.decision.why),
            },
        }
