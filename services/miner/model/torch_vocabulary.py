"""The vocabulary of a GGUF file as `transformers` reads it, for files whose vocabulary llama.cpp refuses.

Imported only where PyTorch serves, as the import alone takes seconds. Calls may come from any thread.
"""

from __future__ import annotations

import os
import re
import threading

os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported: whatever a file lacks is not looked for elsewhere

import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from services.miner.model.gguf import Structure, read_structure
from shared.errors import EngineError, NotReadyError

# What transformers raises about a file is of no common kind.
REFUSALS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
            ValueError)  # fmt: skip
DESCRIPTORS = "/proc/self/fd"  # so that what was checked is what is read

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Ends that the files of some families do not name, of a turn or of a piece of code; llama.cpp knows them by text, too.
ENDS_BY_TEXT = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "</s>",
        "<reponame>",
        "<|repo_name|>",
        "<|file_sep|>",
        "<|fim_pad|>",
    ]
)


class TransformersVocabulary:
    """Turns text into token ids and tokens into bytes. Raises EngineError from the constructor."""

    def __init__(self, descriptor: int) -> None:
        structure = read_structure(descriptor)
        transformers.logging.set_verbosity_error()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                DESCRIPTORS, gguf_file=str(descriptor), local_files_only=True, trust_remote_code=False
            )
        except REFUSALS as error:
            raise EngineError(f"transformers refuses the vocabulary: {error}") from error
        self._lock = threading.Lock()
        self.longest = None  # its text is prepared in ways that leave some out
        self._closed = False
        self._names: list[str] = self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))
        self._added = {
            number: (token.content, token.special) for number, token in self._tokenizer.added_tokens_decoder.items()
        }
        self._byte_level = structure.metadata.get("tokenizer.ggml.model") == "gpt2"
        self._bytes = {character: byte for byte, character in bytes_to_unicode().items()}
        self._bos, self._ends = _number(structure, "bos_token_id"), self._ending_tokens(structure)
        self.size = len(self._names)
        self.adds_bos = self._bos is not None and bool(
            structure.metadata.get("tokenizer.ggml.add_bos_token", not self._byte_level)
        )
        self.bos = self._name(self._bos)
        self.eos = self._name(_number(structure, "eos_token_id"))

    def tokenise(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of `text`; raises NotReadyError after `close`."""
        with self._lock:
            if self._closed:
                raise NotReadyError("the model was just replaced", next_step="send the request again")
            tokens: list[int] = self._tokenizer.encode(
                text.encode(errors="replace").decode(),
                add_special_tokens=False,
                split_special_tokens=not parse_special,
            )
        return [self._bos, *tokens] if add_special and self.adds_bos and self._bos is not None else tokens

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; control tokens have some only when they are `special`."""
        if token in self._added:
            content, controls = self._added[token]
            return b"" if controls and not special else content.encode()
        name = self._names[token]
        if self._byte_level:
            return bytes(self._bytes[character] for character in name if character in self._bytes)
        if byte := BYTE_TOKEN.fullmatch(name):
            return bytes.fromhex(byte[1])
        return name.replace("\u2581", " ").encode()

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer."""
        return token in self._ends

    def close(self) -> None:
        """Later calls of `tokenise` raise NotReadyError."""
        with self._lock:
            self._closed = True

    def _ending_tokens(self, structure: Structure) -> frozenset[int]:
        named = {number for key in ENDS if (number := _number(structure, key)) is not None}
        return frozenset(named | {number for number, (content, _) in self._added.items() if content in ENDS_BY_TEXT})

    def _name(self, token: int | None) -> str:
        return self._names[token] if token is not None and token < len(self._names) else ""


def _number(structure: Structure, key: str) -> int | None:
    number = structure.metadata.get(f"tokenizer.ggml.{key}")
    return number if isinstance(number, int) and number >= 0 else None
