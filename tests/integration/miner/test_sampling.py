"""Sampler chains on the real model: each parameter does what its name says, by rows of real logits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from llama_cpp import llama_cpp

from services.miner.engine.llama_backend import LlamaBackend
from services.miner.engine.messages import Load, Sampling, Submit
from services.miner.engine.scheduler import Slice
from services.miner.engine.sequence import Sequence
from shared.store.records import StatIdentity
from tests.integration.miner.stand import model_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GREEDY = Sampling(temperature=0)
WILD = Sampling(temperature=2, top_k=0)
DRAWS = 200


class Model:
    """The real model in this process, with the logits of one prompt."""

    def __init__(self) -> None:
        descriptor = os.open(model_file(), os.O_RDONLY)
        load = Load(
            descriptor=descriptor,
            identity=StatIdentity.of(os.fstat(descriptor)),
            cells=512,
            sequences=2,
            batch_tokens=64,
            prefill_tokens=64,
            gpu_layers=0,
            threads=1,
            flash_attention=-1,
            type_k=1,
            type_v=1,
            split_mode=1,
        )
        self.backend = LlamaBackend(load, str(model_file()))
        self.prompt = (504, 28, 1046, 28, 1296, 28)  # "One, two, three,"
        sequence = Sequence("x", list(self.prompt), 100)
        sequence.slot = 0
        self.backend.decode([Slice(sequence, 0, len(self.prompt))])
        self.row = len(self.prompt) - 1

    @property
    def probabilities(self) -> np.ndarray:
        """Of all tokens after the prompt, at temperature 1."""
        pointer = llama_cpp.llama_get_logits_ith(self.backend._context, self.row)
        logits = np.ctypeslib.as_array(pointer, (self.backend._vocabulary_size,)).astype(np.float64)
        odds = np.exp(logits - logits.max())
        return np.asarray(odds / odds.sum())

    @property
    def ranked(self) -> list[int]:
        """Tokens, the likeliest first."""
        return [int(token) for token in np.argsort(-self.probabilities)]

    def draw(self, sampling: Sampling, times: int = 1, prompt: tuple[int, ...] | None = None) -> list[int]:
        """Tokens that one chain gives for the same row, again and again."""
        chain = self.backend.sampler(Submit("x", prompt or self.prompt, 64, sampling=sampling), None)
        tokens = [chain.sample(self.row) for _ in range(times)]
        chain.close()
        return tokens


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    return Model()


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        replace(WILD, top_k=1),
        replace(WILD, top_p=0.0001),
        replace(WILD, min_p=1.0),
        Sampling(mirostat=1, mirostat_tau=0.0, mirostat_eta=1.0),
        Sampling(mirostat=2, mirostat_tau=0.0, mirostat_eta=1.0),
    ],
)
def test_the_tightest_of_each_cut_leaves_the_likeliest_token(model: Model, sampling: Sampling) -> None:
    drawn = model.draw(sampling, DRAWS)
    assert set(drawn[-20:]) == {model.ranked[0]}  # mirostat needs a few tokens to find its cut


def test_top_k_and_top_p_and_min_p_leave_what_they_say(model: Model) -> None:
    ranked, probabilities = model.ranked, model.probabilities
    assert set(model.draw(replace(WILD, top_k=3), DRAWS)) == set(ranked[:3])
    share = np.cumsum(np.sort(probabilities)[::-1])
    nucleus = ranked[: int(np.searchsorted(share, 0.8)) + 1]
    assert set(model.draw(replace(WILD, top_p=0.8), 50 * DRAWS)) <= set(nucleus)
    likely = [token for token in ranked if probabilities[token] >= 0.05 * probabilities[ranked[0]]]
    assert set(model.draw(replace(WILD, min_p=0.05), DRAWS)) <= set(likely)
    assert not set(model.draw(WILD, DRAWS)) <= set(likely)


def test_top_k_comes_before_top_p(model: Model) -> None:
    first, second = (float(model.probabilities[token]) for token in model.ranked[:2])
    # More than the first token's share of the vocabulary, less than its share of the two that top-k leaves.
    top_p = (first + first / (first + second)) / 2
    assert set(model.draw(replace(WILD, top_k=2, top_p=top_p), DRAWS)) == {model.ranked[0]}
    assert len(set(model.draw(replace(WILD, top_p=top_p), DRAWS))) > 1


def test_typical_sampling_draws_from_fewer_tokens_than_all(model: Model) -> None:
    assert len(set(model.draw(replace(WILD, typical_p=0.2), DRAWS))) < len(set(model.draw(WILD, DRAWS))) / 2


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_with_more_surprise_gives_more_different_tokens(model: Model, version: int) -> None:
    def different(surprise: float) -> int:
        return len(set(model.draw(Sampling(mirostat=version, mirostat_tau=surprise, seed=3), DRAWS)))  # type: ignore[arg-type]

    assert different(1.0) < different(9.0)


def test_draws_at_temperature_1_follow_the_probabilities(model: Model) -> None:
    counts = Counter(model.draw(Sampling(top_k=0, seed=5), 2000))
    first = model.ranked[0]
    assert counts[first] / 2000 == pytest.approx(model.probabilities[first], abs=0.05)


def test_a_seed_repeats_a_chain_and_another_one_does_not(model: Model) -> None:
    assert model.draw(replace(WILD, seed=7), 20) == model.draw(replace(WILD, seed=7), 20)
    assert model.draw(replace(WILD, seed=7), 20) != model.draw(replace(WILD, seed=8), 20)


def test_a_logit_bias_forces_one_token_and_forbids_another(model: Model) -> None:
    first, last = model.ranked[0], model.ranked[-1]
    assert model.draw(replace(GREEDY, logit_bias=((last, 100.0),))) == [last]
    assert model.draw(replace(GREEDY, logit_bias=((first, -100.0),))) == [model.ranked[1]]


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_presence_and_frequency_count_the_answer_and_not_the_prompt(model: Model, name: str) -> None:
    first = model.ranked[0]
    penalised = replace(GREEDY, **{name: 100.0})
    assert model.draw(penalised, prompt=(first, first)) == [first]
    drawn = model.draw(penalised, 5)
    assert drawn == model.ranked[:5]  # what was drawn once is not drawn again


def test_the_repeat_penalty_looks_at_prompt_and_answer_within_its_window(model: Model) -> None:
    first, second = model.ranked[:2]
    penalised = replace(GREEDY, repeat_penalty=10.0)
    assert model.draw(penalised, prompt=(first, 1)) != [first]
    assert model.draw(replace(penalised, repeat_last_n=1), prompt=(first, 1)) == [first]
    assert model.draw(replace(penalised, repeat_last_n=0), 3, prompt=(first, 1)) == [first] * 3
    everything = replace(penalised, repeat_last_n=-1)
    assert model.draw(everything, prompt=(first, *[1] * 100)) != [first]
    assert model.draw(penalised, prompt=(first, *[1] * 100)) == [first]
    assert model.draw(replace(penalised, repeat_last_n=1), 4) == [first, second] * 2
