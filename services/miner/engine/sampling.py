"""One sampler chain of llama.cpp a request, built once and run in C: logits never become Python objects.

Order in the chain: logit bias, penalties, top-k, top-p, min-p, temperature, the draw. Temperature 0 is greedy. Top-k
comes before top-p, since top-p alone has to sort the whole vocabulary for every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_cpp import llama_cpp

from services.miner.engine.messages import Sampling

# The package's annotations describe neither its pointers nor its enums; its functions are checked by the tests.
llama: Any = llama_cpp

PENALTY_WINDOW = 64  # last tokens that the penalties look at, llama.cpp's own default
RANDOM_SEED = 0xFFFFFFFF  # llama.cpp reads this one as "choose a seed"


class SamplerChain:
    """Owns one `llama_sampler_chain`; `sample` draws and remembers, `close` frees."""

    def __init__(self, sampling: Sampling, context: object, vocabulary_size: int) -> None:
        self._context = context
        parameters = llama.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self._chain = llama.llama_sampler_chain_init(parameters)
        for link in _links(sampling, vocabulary_size):
            llama.llama_sampler_chain_add(self._chain, link)

    def sample(self, index: int) -> int:
        """Return the token drawn from the `index`-th row of the last batch."""
        return int(llama.llama_sampler_sample(self._chain, self._context, index))

    def close(self) -> None:
        """Free the chain; a second call does nothing."""
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)
            self._chain = None


def _links(sampling: Sampling, vocabulary_size: int) -> Iterator[Any]:
    if sampling.logit_bias:
        biases = (llama.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias)
        yield llama.llama_sampler_init_logit_bias(vocabulary_size, len(sampling.logit_bias), biases)
    penalties = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        yield llama.llama_sampler_init_penalties(vocabulary_size, PENALTY_WINDOW, *penalties)
    if sampling.temperature <= 0:
        yield llama.llama_sampler_init_greedy()
        return
    if sampling.top_k > 0:
        yield llama.llama_sampler_init_top_k(sampling.top_k)
    if sampling.top_p < 1:
        yield llama.llama_sampler_init_top_p(sampling.top_p, 1)
    if sampling.min_p > 0:
        yield llama.llama_sampler_init_min_p(sampling.min_p, 1)
    yield llama.llama_sampler_init_temp(sampling.temperature)
    seed = sampling.seed & 0xFFFFFFFF
    yield llama.llama_sampler_init_dist(seed if seed != RANDOM_SEED else 0)
