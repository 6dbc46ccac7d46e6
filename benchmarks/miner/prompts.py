"""Prompts of random words, each word one token, so that a prompt has exactly the tokens that were asked for.

Drawn from a seed that names round, server and level: no server's cache can know what it is sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp

from services.miner.llama_log import take_log
from services.miner.model.vocabulary import Vocabulary

llama: Any = llama_cpp

SPACE = "Ġ"  # how byte-level vocabularies write a space in front of a word
LEAST_LETTERS = 3


class Prompts:
    """Draws prompts; the same seed draws the same."""

    def __init__(self, words: Sequence[str], seed: str) -> None:
        self._words = words
        self._chance = random.Random(seed)  # noqa: S311 - words of a benchmark, no secret

    def draw(self, tokens: int) -> str:
        """Return a text of `tokens` tokens; texts can be put one after the other and keep their counts."""
        return "".join(f" {word}" for word in self._chance.choices(self._words, k=tokens))


def one_token_words(model: Path) -> list[str]:
    """Return the words of a GGUF's vocabulary that are one token each where a space stands before them."""
    take_log()
    with model.open("rb") as file:
        vocabulary = Vocabulary(file.fileno())
    try:
        return [
            word
            for word in _words(model)
            if len(vocabulary.tokenise(f" {word}", add_special=False, parse_special=False)) == 1
        ]
    finally:
        vocabulary.close()


def _words(model: Path) -> Iterator[str]:
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    loaded = llama.llama_model_load_from_file(str(model).encode(), parameters)
    vocabulary = llama.llama_model_get_vocab(loaded)
    for token in range(llama.llama_vocab_n_tokens(vocabulary)):
        text = llama.llama_vocab_get_text(vocabulary, token).decode("utf-8", errors="replace")
        word = text.removeprefix(SPACE)
        if text != word and len(word) >= LEAST_LETTERS and word.isascii() and word.isalpha() and word.islower():
            yield word
    llama.llama_model_free(loaded)
