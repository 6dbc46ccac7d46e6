"""The API process's own vocabulary: a vocab-only load of the checked file, to tokenise without asking the engine.

It knows no training length and no memory type; those come from the engine process. Calls may come from any thread.
A file that llama.cpp refuses altogether has its vocabulary read by `transformers`, where PyTorch serves it.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import threading
from functools import partial
from typing import Any, Protocol

from llama_cpp import llama_cpp

from services.miner.llama_log import last_errors
from services.miner.model.deep_stack import run_deep
from shared.errors import EngineError, NotReadyError, UsageError

llama: Any = llama_cpp

NO_TOKEN = -1  # LLAMA_TOKEN_NULL
# For many vocabularies llama.cpp divides the text by std::regex, which calls itself for each character of a run: with a
# stack as threads have it, one long word killed the process. Measured: 304 to 346 bytes of stack a character.
STACK_A_BYTE = 768
SHORT_BYTES = 1024  # a text that no thread's stack is too small for
MOST_RUN = 1_048_576  # characters that nothing divides: their stack is 350 MiB of memory, not of addresses alone
_RUN = re.compile(r"\S+|\s+")
# Kinds of vocabularies in which every byte of a text is in a token; others leave some out, such as spaces.
WHOLE = (llama_cpp.LLAMA_VOCAB_TYPE_SPM, llama_cpp.LLAMA_VOCAB_TYPE_BPE)
PIECE_BYTES = 256  # longer than any token of a known vocabulary; a longer one is asked for again


class Tokeniser(Protocol):
    """A vocabulary, whoever reads it. `bos` and `eos` are the texts of these tokens, empty where there are none.

    `longest` is how many bytes of a text one token stands for at most, None where that is not known.
    """

    size: int
    adds_bos: bool
    bos: str
    eos: str
    longest: int | None

    def tokenise(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of `text`; raises NotReadyError after `close`."""
        ...

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; control tokens have some only when they are `special`."""
        ...

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def open_vocabulary(descriptor: int, *, torch: bool) -> Tokeniser:
    """Return the vocabulary as llama.cpp reads it, or with `torch` as `transformers` does; raises EngineError."""
    try:
        return Vocabulary(descriptor)
    except EngineError:
        if not torch:
            raise
    fallback = importlib.import_module("services.miner.model.torch_vocabulary")
    vocabulary: Tokeniser = fallback.TransformersVocabulary(descriptor)
    return vocabulary


class Vocabulary:
    """Turns text into token ids. Raises EngineError from the constructor when llama.cpp refuses the file."""

    def __init__(self, descriptor: int) -> None:
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        self._lock = threading.Lock()
        self._model = llama.llama_model_load_from_file(f"/proc/self/fd/{descriptor}".encode(), parameters)
        if not self._model:
            raise EngineError(f"llama.cpp refuses the vocabulary: {last_errors() or 'no reason given'}")
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self.size = int(llama.llama_vocab_n_tokens(self._vocabulary))
        self.adds_bos = bool(llama.llama_vocab_get_add_bos(self._vocabulary))
        self.bos = self._text(llama.llama_vocab_bos(self._vocabulary))
        self.eos = self._text(llama.llama_vocab_eos(self._vocabulary))
        self.longest = self._longest()

    @property
    def pointer(self) -> object:
        """The `llama_vocab`, for calls into llama.cpp before `close`."""
        return self._vocabulary

    def tokenise(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of `text`.

        `add_special` adds what the model wants around a prompt (BOS), `parse_special` reads control tokens in the text
        as such. Raises NotReadyError after `close`, and when there is no memory for so long a text; UsageError for one
        that nothing divides for too long.
        """
        content = text.encode("utf-8", errors="replace")
        work = partial(self._tokens, content, add_special=add_special, parse_special=parse_special)
        if len(content) <= SHORT_BYTES:
            return work()
        if len(text) > MOST_RUN and any(run.end() - run.start() > MOST_RUN for run in _RUN.finditer(text)):
            raise UsageError(f"a text with more than {MOST_RUN} characters that nothing divides")
        return run_deep(work, len(content) * STACK_A_BYTE)

    def _tokens(self, content: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        room = len(content) + 8  # a token is at least one byte, but for the special ones
        tokens = (ctypes.c_int32 * room)()
        with self._lock:
            if self._model is None:
                raise NotReadyError("the model was just replaced", next_step="send the request again")
            count = llama.llama_tokenize(
                self._vocabulary, content, len(content), tokens, room, add_special, parse_special
            )
        if count < 0:
            raise EngineError(f"the vocabulary gives {-count} tokens for {len(content)} bytes")
        return tokens[:count]

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; control tokens have some only when they are `special`. Not after `close`."""
        size = PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer. Not after `close`."""
        return bool(llama.llama_vocab_is_eog(self._vocabulary, token))

    def close(self) -> None:
        """Free the vocabulary; later calls raise NotReadyError."""
        with self._lock:
            if self._model is not None:
                llama.llama_model_free(self._model)
                self._model = None

    def _longest(self) -> int | None:
        if llama.llama_vocab_type(self._vocabulary) not in WHOLE:
            return None
        # A token's text is never shorter than its bytes: it has spaces and bytes in a longer spelling.
        texts = (llama.llama_vocab_get_text(self._vocabulary, token) for token in range(self.size))
        return max((len(text) for text in texts if text), default=None)

    def _text(self, token: int) -> str:
        if token == NO_TOKEN:
            return ""
        text = llama.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", errors="replace") if text else ""
