"""A grammar as llama.cpp matches it. Any call may end this process: only a grammar's own process makes them.

Invariant: a token is accepted only after the grammar allowed it; accepting another one aborts the process.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from services.miner.grammar.candidates import Candidates
from services.miner.model.vocabulary import Vocabulary

llama: Any = llama_cpp

NO_CHARACTER = 128  # after the last ASCII character


class Pieces:
    """What a look at all tokens can leave out: where `x` may not come next, nothing that begins with `x` may.

    `first` is for each token the ASCII character that its text begins with, or `NO_CHARACTER`: other bytes, tokens
    without a text, tokens that end the answer. `single` are the tokens of one such character; `shown` have a text that
    a client sees, or end the answer.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.size = vocabulary.size
        self.everything = np.arange(vocabulary.size, dtype=np.int32)
        self.first = np.full(vocabulary.size, NO_CHARACTER, np.uint8)
        self.shown = np.ones(vocabulary.size, np.bool_)
        single: dict[int, int] = {}
        for token in range(vocabulary.size):
            if vocabulary.ends(token):
                continue
            piece = vocabulary.piece(token, special=False)
            self.shown[token] = bool(piece)
            if piece and piece[0] < NO_CHARACTER:
                self.first[token] = piece[0]
                if len(piece) == 1:
                    single[piece[0]] = token
        self.single = np.array(list(single.values()), np.int32)


class UnparsableError(Exception):
    """llama.cpp does not take this grammar."""


class ParsedGrammar:
    """One grammar and how far the answer has come in it."""

    def __init__(self, grammar: str, pieces: Pieces) -> None:
        """Parse; raises UnparsableError when it cannot, and llama.cpp has said why on standard error or in its log."""
        self._sampler = llama.llama_sampler_init_grammar(pieces.vocabulary.pointer, grammar.encode(), b"root")
        if not self._sampler:
            raise UnparsableError
        self._pieces = pieces
        self._by_text = not {"<", "!"} & set(grammar)  # else a rule may name tokens by their number
        self._candidates = Candidates(pieces.size)

    def allows(self, token: int) -> bool:
        """Tell whether the answer may go on with this token."""
        if self._by_text and not self._pieces.shown[token]:
            return False  # llama.cpp matches the name of a control token, and nobody would see it
        return bool(self._apply(np.array([token], np.int32))[0])

    def allowed(self) -> NDArray[np.bool_]:
        """Return for each token of the vocabulary whether the answer may go on with it."""
        pieces = self._pieces
        if not self._by_text:
            return self._apply(pieces.everything)
        begins = np.ones(NO_CHARACTER + 1, np.bool_)
        begins[pieces.first[pieces.single]] = self._apply(pieces.single)
        asked = np.flatnonzero(begins[pieces.first]).astype(np.int32)
        allowed = np.zeros(pieces.size, np.bool_)
        allowed[asked] = self._apply(asked)
        return allowed & pieces.shown

    def accept(self, token: int) -> None:
        """Go on with a token that is allowed."""
        llama.llama_sampler_accept(self._sampler, token)

    def _apply(self, tokens: NDArray[np.int32]) -> NDArray[np.bool_]:
        llama.llama_sampler_apply(self._sampler, ctypes.byref(self._candidates.fill(tokens, 0.0)))
        finite: NDArray[np.bool_] = np.isfinite(self._candidates.rows["logit"][: len(tokens)])
        return finite
