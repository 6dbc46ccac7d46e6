"""One sampler chain of llama.cpp a request, built once and run in C: logits never become Python objects.

Order in the chain: logit bias, penalties, top-k, typical, top-p, min-p, temperature, the draw; with mirostat, which
chooses its own cut, bias, penalties, temperature, mirostat. Temperature 0 is greedy. Top-k comes before top-p, since
top-p alone has to sort the whole vocabulary for every token.

Penalties: the repeat penalty looks at the last `repeat_last_n` tokens of prompt and answer, as llama-server's does;
presence and frequency count the answer alone, as OpenAI's and vLLM's do, or a question would forbid its own words.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from services.miner.engine.messages import Sampling, Submit
from services.miner.grammar.candidates import Candidates

# The package's annotations describe neither its pointers nor its enums; its functions are checked by the tests.
llama: Any = llama_cpp

RANDOM_SEED = 0xFFFFFFFF  # llama.cpp reads this one as "choose a seed"
SURPRISE_TOKENS = 100  # tokens from which mirostat 1 estimates the distribution, as in llama.cpp's own tools


class Rows:
    """Where the logits of the last batch's rows are: copied out, or in the context, there perhaps at another index."""

    def __init__(self, vocabulary_size: int) -> None:
        self.copied: dict[int, NDArray[np.float32]] = {}
        self.index: dict[int, int] = {}
        self.tokens = np.arange(vocabulary_size, dtype=np.int32)
        self.candidates = Candidates(vocabulary_size)

    def clear(self) -> None:
        """Begin a batch."""
        self.copied.clear()
        self.index.clear()


class RowSampler:
    """Draws with a chain from any row, wherever its logits are."""

    def __init__(self, chain: SamplerChain, rows: Rows) -> None:
        self._chain = chain
        self._rows = rows

    def begin(self, index: int) -> None:
        """Nothing runs beside others here: sampling is a hundredth of a step."""

    def sample(self, index: int) -> int:
        """Return the token drawn from the `index`-th row of the last batch."""
        logits = self._rows.copied.get(index)
        if logits is None:
            return self._chain.sample(self._rows.index.get(index, index))
        token = self._chain.choose(self._rows.candidates.fill(self._rows.tokens, logits))
        self._chain.remember(token)
        return token

    def close(self) -> None:
        """Free the chain."""
        self._chain.close()


class SamplerChain:
    """Owns one `llama_sampler_chain`; `sample` draws and remembers, `close` frees."""

    def __init__(self, request: Submit, context: object, vocabulary_size: int) -> None:
        self._context = context
        parameters = llama.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self._chain = llama.llama_sampler_chain_init(parameters)
        for link in _links(request, vocabulary_size):
            llama.llama_sampler_chain_add(self._chain, link)

    def sample(self, index: int) -> int:
        """Return the token drawn from the `index`-th row of the context's last batch."""
        return int(llama.llama_sampler_sample(self._chain, self._context, index))

    def choose(self, candidates: ctypes.Structure) -> int:
        """Return the token drawn from a `llama_token_data_array`, which is reordered; nothing is remembered."""
        llama.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        return int(candidates.data[candidates.selected].id)

    def remember(self, token: int) -> None:
        """Let later draws know that this token was taken."""
        llama.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain; a second call does nothing."""
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)
            self._chain = None


def _links(request: Submit, vocabulary_size: int) -> Iterator[Any]:
    sampling = request.sampling
    if sampling.logit_bias:
        biases = (llama.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias)
        yield llama.llama_sampler_init_logit_bias(vocabulary_size, len(sampling.logit_bias), biases)
    yield from _penalties(request, vocabulary_size)
    if sampling.temperature <= 0:
        yield llama.llama_sampler_init_greedy()
    elif sampling.mirostat:
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield _mirostat(sampling, vocabulary_size)
    else:
        yield from _cuts(sampling)
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield llama.llama_sampler_init_dist(_seed(sampling))


def _penalties(request: Submit, vocabulary_size: int) -> Iterator[Any]:
    sampling, longest = request.sampling, len(request.prompt) + request.max_tokens
    window = longest if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, longest)
    if sampling.repeat_penalty != 1 and window:
        link = llama.llama_sampler_init_penalties(vocabulary_size, window, sampling.repeat_penalty, 0.0, 0.0)
        for token in request.prompt[-window:]:
            llama.llama_sampler_accept(link, token)
        yield link
    counts = sampling.frequency_penalty, sampling.presence_penalty
    if counts != (0, 0):
        yield llama.llama_sampler_init_penalties(vocabulary_size, request.max_tokens, 1.0, *counts)


def _cuts(sampling: Sampling) -> Iterator[Any]:
    if sampling.top_k > 0:
        yield llama.llama_sampler_init_top_k(sampling.top_k)
    if sampling.typical_p < 1:
        yield llama.llama_sampler_init_typical(sampling.typical_p, 1)
    if sampling.top_p < 1:
        yield llama.llama_sampler_init_top_p(sampling.top_p, 1)
    if sampling.min_p > 0:
        yield llama.llama_sampler_init_min_p(sampling.min_p, 1)


def _mirostat(sampling: Sampling, vocabulary_size: int) -> object:
    target, rate = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        return llama.llama_sampler_init_mirostat(vocabulary_size, _seed(sampling), target, rate, SURPRISE_TOKENS)
    return llama.llama_sampler_init_mirostat_v2(_seed(sampling), target, rate)


def _seed(sampling: Sampling) -> int:
    seed = sampling.seed & 0xFFFFFFFF
    return seed if seed != RANDOM_SEED else 0
