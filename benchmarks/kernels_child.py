"""Computes with llama.cpp where it is started, on this host or in the miner's image: prefill and decode, tokens/s.

`python kernels_child.py MODEL THREADS`; each line on stdin is a round, each on stdout its figures as JSON. It needs the
miner's own packages and no other of this repository.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

from llama_cpp import llama_cpp

from services.miner.engine.batch import Batch
from services.miner.kernels import load_kernels
from services.miner.llama_log import take_log
from shared.log import configure_logging

llama: Any = llama_cpp

PROMPT = 512
SEQUENCES = 16
STEPS = 64


class Bench:
    """One context, empty before each figure."""

    def __init__(self, path: str, threads: int) -> None:
        llama.llama_backend_init()
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = llama.llama_model_load_from_file(path.encode(), parameters)
        context = llama.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = SEQUENCES * 256, PROMPT, PROMPT
        context.n_seq_max, context.n_threads, context.n_threads_batch = SEQUENCES, threads, threads
        context.kv_unified = True
        self._context = llama.llama_init_from_model(self._model, context)
        self._batch = Batch(PROMPT)

    def prefill(self) -> float:
        """Tokens/s of one prompt."""
        return self._rate(PROMPT, 1, [[part(0, 0, PROMPT)]])

    def decode(self, sequences: int) -> float:
        """Tokens/s of answers, a token for each sequence in a step."""
        steps = [[part(slot, step, 1) for slot in range(sequences)] for step in range(STEPS)]
        return self._rate(1, sequences * STEPS, steps)

    def _rate(self, size: int, count: int, steps: list[list[SimpleNamespace]]) -> float:
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        begun = time.perf_counter()
        for step in steps:
            if llama.llama_decode(self._context, self._batch.fill(step)):  # type: ignore[arg-type]
                raise SystemExit("llama_decode failed")
            llama.llama_synchronize(self._context)
        return size * count / (time.perf_counter() - begun)


def part(slot: int, start: int, count: int) -> SimpleNamespace:
    """`count` tokens of a sequence from `start`."""
    tokens = [100 + (start + offset) % 1000 for offset in range(count)]
    return SimpleNamespace(slot=slot, start=start, count=count, tokens=tokens, samples=True)


def main(path: str, threads: int) -> None:
    """Answer each line with a round's figures, the first of which is no figure but a warm-up."""
    configure_logging("bench", "warning")
    take_log()
    load_kernels()
    bench = Bench(path, threads)
    features = llama.llama_print_system_info().decode()
    for _ in sys.stdin:
        figures = {"prefill": bench.prefill(), "decode 1": bench.decode(1), "decode 16": bench.decode(SEQUENCES)}
        sys.stdout.write(json.dumps({"figures": figures, "features": features}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
