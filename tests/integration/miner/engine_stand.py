"""The engine on the real model in this process, and the model alone to compare its answers with."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from services.miner.engine.engine import Engine
from services.miner.engine.llama_backend import LlamaBackend
from services.miner.engine.messages import Load, Output, Sampling, Submit
from services.miner.engine.scheduler import Limits
from shared.store.records import StatIdentity

llama: Any = llama_cpp
GREEDY = Sampling(temperature=0.0)
F32, F16 = 0, 1  # types of the cache
_SILENT = llama.llama_log_callback(lambda _level, _text, _data: None)
llama.llama_log_set(_SILENT, None)


@contextmanager
def loaded_backend(  # noqa: PLR0913 - what a test wants otherwise, by name
    file: Path,
    *,
    cells: int = 4096,
    sequences: int = 8,
    batch_tokens: int = 128,
    cache_type: int = F32,
    flash_attention: int = 1,
    threads: int = 2,
    stored: int = 0,
    gpu_layers: int = 0,
) -> Iterator[LlamaBackend]:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        load = Load(
            descriptor=descriptor,
            identity=StatIdentity.of(os.fstat(descriptor)),
            cells=cells,
            sequences=sequences,
            batch_tokens=batch_tokens,
            prefill_tokens=batch_tokens // 4,
            gpu_layers=gpu_layers,
            threads=threads,
            flash_attention=flash_attention,
            type_k=cache_type,
            type_v=cache_type,
            split_mode=1,
            stored=stored,
        )
        backend = LlamaBackend(load, f"/proc/self/fd/{descriptor}")
        try:
            yield backend
        finally:  # in the product the process ends instead
            if backend._aside is not None:
                llama.llama_free(backend._aside._context)
            llama.llama_free(backend._context)
            llama.llama_model_free(backend._model)
    finally:
        os.close(descriptor)


@contextmanager
def llama_lines() -> Iterator[list[str]]:
    """Collect what llama.cpp logs."""
    lines: list[str] = []
    callback = llama.llama_log_callback(lambda _level, line, _data: lines.append(line.decode(errors="replace")))
    llama.llama_log_set(callback, None)
    try:
        yield lines
    finally:
        llama.llama_log_set(_SILENT, None)


class EngineStand:
    """An engine whose requests generate greedily and do not stop at the end token."""

    def __init__(self, backend: LlamaBackend, limits: Limits) -> None:
        backend.clear()
        self.engine = Engine(backend, limits)
        self.outputs: dict[str, list[Output]] = {}
        self.tokens: dict[str, list[int]] = {}

    def submit(self, name: str, prompt: Sequence[int], max_tokens: int) -> None:
        self.outputs[name] = []
        self.engine.submit(Submit(name, tuple(prompt), max_tokens, sampling=GREEDY, ignore_end=True))

    def step(self) -> None:
        self.tokens |= {each.request_id: each.tokens for each in self.engine.scheduler.running}
        for output in self.engine.step().outputs:
            self.outputs[output.request_id].append(output)

    def run(self) -> None:
        while not self.engine.idle:
            self.step()

    def reused(self, name: str) -> int:
        return max(output.reused for output in self.outputs[name])


class Alone:
    """One sequence in a context of its own, without any of our code: what the model says to given tokens."""

    def __init__(self, file: Path, *, cache_type: int = F32, flash_attention: int = 1, threads: int = 2) -> None:
        self._model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = 2048
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = flash_attention
        parameters.type_k = parameters.type_v = cache_type
        self._context = llama.llama_init_from_model(self._model, parameters)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(llama.llama_vocab_n_tokens(self._vocabulary))

    def close(self) -> None:
        """Give the memory back."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    def tokenise(self, text: str) -> list[int]:
        raw = text.encode()
        tokens = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama.llama_tokenize(self._vocabulary, raw, len(raw), tokens, len(tokens), True, True)
        return list(tokens[:count])

    def logits(self, tokens: Sequence[int], start: int) -> NDArray[np.float32]:
        """Return the logits after each token from `start` on: (tokens - start, vocabulary)."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for place, token in enumerate(tokens):
                batch.token[place], batch.pos[place] = token, place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = place >= start
            assert llama.llama_decode(self._context, batch) == 0
            rows = [llama.llama_get_logits_ith(self._context, place) for place in range(start, len(tokens))]
            return np.stack([np.ctypeslib.as_array(row, (self.vocabulary_size,)).copy() for row in rows])
        finally:
            llama.llama_batch_free(batch)

    def agreement(self, tokens: Sequence[int], prompt_length: int) -> list[bool]:
        """Tell for each generated token whether the model alone, given all before it, holds it most likely."""
        best = self.logits(tokens[:-1], prompt_length - 1).argmax(axis=1)
        return [bool(most == token) for most, token in zip(best, tokens[prompt_length:], strict=True)]
