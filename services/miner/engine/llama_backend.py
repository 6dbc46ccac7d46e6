"""llama.cpp behind the backend interface, by its low-level API: one context, one unified cache, all sequences.

The file is opened by `/proc/self/fd/N` of the descriptor that was checked, so what was checked is what is loaded.
Order: `llama_log.take_log()` → `LlamaBackend(load, path)` → `decode`/`sampler`/`piece`/`drop` → the process ends.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence as Row
from typing import Any, Literal

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from services.miner.engine.abort import look_at
from services.miner.engine.aside import Aside, bytes_of, packed_sequence
from services.miner.engine.backend import AbortedError, GpuGoneError, Hidden, NoRoomError, Pooling, Sampler
from services.miner.engine.batch import Batch
from services.miner.engine.cache_moves import Copy, Cut, Forget, Gather, Move, SwapIn, SwapOut
from services.miner.engine.constrained import ConstrainedSampler
from services.miner.engine.logprobs import Ranking, ranking
from services.miner.engine.messages import Load, Loaded, Submit
from services.miner.engine.prefix_cache import MAX_STORING_SLOTS, slot_count
from services.miner.engine.sampling import Rows, RowSampler, SamplerChain
from services.miner.engine.scheduler import EMBED_TOKENS, Slice
from services.miner.grammar.matcher import Matcher, Nursery
from services.miner.grammar.wire import Constraint
from services.miner.llama_log import expect_errors_while, last_errors
from shared.errors import EngineError

llama: Any = llama_cpp

NO_ROOM = 1  # llama_decode: no cells for this batch, the cache is as it was
ABORTED = 2  # llama_decode: the flag was set; with n_batch == n_ubatch, and attention alone, the cache is as it was
POOLINGS: dict[int | None, Pooling] = {1: "mean", 2: "first", 3: "last"}  # as files name them; mean where they do not
PIECE_BYTES = 256  # longer than any token of a known vocabulary; a longer one is asked for again


class LlamaBackend:
    """A model and its context.

    Raises EngineError from the constructor when llama.cpp refuses either, GpuGoneError for layers on a GPU without one.
    """

    def __init__(self, load: Load, path: str) -> None:
        started = time.monotonic()
        llama.llama_backend_init()
        if load.gpu_layers and not llama.llama_supports_gpu_offload():  # it would load to the processor and say nothing
            raise GpuGoneError("layers were to run on a GPU, and llama.cpp finds none")
        self._tensor_split = _tensor_split(load.tensor_split)
        self._model = llama.llama_model_load_from_file(path.encode(), self._model_parameters(load))
        if not self._model:
            raise EngineError(f"llama.cpp refuses the file: {last_errors() or 'no reason given'}")
        if llama.llama_model_has_encoder(self._model) or not llama.llama_model_has_decoder(self._model):
            raise EngineError("only decoder models are served; this one has an encoder")
        self.sharing = (
            self._memory_kind() == "attention"
        )  # other memories cannot drop a suffix, or forget cells that a prefix needs
        self.slots = slot_count(load.sequences) if self.sharing else load.sequences
        self.on_processor = load.gpu_layers == 0
        packs = self.sharing and self.on_processor and self.slots <= MAX_STORING_SLOTS
        self._packing = self.slots  # the slot through which cells are taken out and put back
        self.stored = load.stored if packs else 0
        self.gathers = packs and load.flash_attention != 0  # without it a cell costs the same wherever it lies
        pooling = self._number("pooling_type")
        self.pooling = POOLINGS.get(pooling, "mean")
        self._embeds = False
        self._width = int(llama.llama_model_n_embd_out(self._model))
        parameters = _context_parameters(load, self.slots + packs)
        if pooling:  # pooled here instead: llama.cpp's pools hold one step alone
            parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        self._context = llama.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise EngineError(f"llama.cpp makes no context for this model: {last_errors() or 'no reason given'}")
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._vocabulary_size = int(llama.llama_vocab_n_tokens(self._vocabulary))
        self._memory = llama.llama_get_memory(self._context)
        self._batch = Batch(load.batch_tokens)
        self._rows = Rows(self._vocabulary_size)
        self._aside: Aside | None = None
        if self.gathers:
            self._aside = Aside(self._model, _context_parameters(load, 2), self._vocabulary_size)
        self._grammars = Nursery(load.descriptor, self._vocabulary_size)
        self._in_memory: dict[int, NDArray[np.uint8]] = {}
        self._pieces: dict[int, bytes] = {}  # at most one entry a token of the vocabulary
        self.load_seconds = time.monotonic() - started

    @property
    def cells(self) -> int:
        """Tokens that the cache holds; llama.cpp rounds what was asked for."""
        return int(llama.llama_n_ctx(self._context))

    def loaded(self) -> Loaded:
        """Describe the model for the API process."""
        description = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self._model, description, len(description))
        return Loaded(
            cells=self.cells,
            training_tokens=int(llama.llama_model_n_ctx_train(self._model)),
            description=description.value.decode(errors="replace"),
            parameters=int(llama.llama_model_n_params(self._model)),
            weight_bytes=int(llama.llama_model_size(self._model)),
            memory=self._memory_kind(),
            seconds=self.load_seconds,
        )

    def decode(self, slices: Row[Slice]) -> None:
        """Compute all slices, prompts aside; raises NoRoomError, AbortedError, or EngineError."""
        if slices[0].sequence.embeds != self._embeds:  # while it is set, every token of a batch gives its numbers
            self._embeds = not self._embeds
            llama.llama_set_embeddings(self._context, self._embeds)
        self._rows.clear()
        together: list[Slice] = []
        aside: list[Slice] = []
        row = index = -1
        try:
            for part in slices:
                row += part.count
                if self._aside is not None and self._aside.suits(part):
                    aside.append(part)
                    self._decode_aside(self._aside, part, row)
                else:
                    together.append(part)
                    index += part.count
                    self._rows.index[row] = index
            if together:
                _require_computed(llama.llama_decode(self._context, self._batch.fill(together)))
        except (NoRoomError, AbortedError):
            for part in aside:
                self._cut(part.slot, part.start)
            raise

    def _decode_aside(self, aside: Aside, part: Slice, row: int) -> None:
        _require_computed(aside.decode(part, lambda end: self._pack(part.slot, 0, end)))
        if part.samples:
            self._rows.copied[row] = aside.logits()
        if not self._put(aside.packed(part), part.slot, part.start, part.start + part.count):
            aside.forget()
            raise NoRoomError

    def hidden(self, start: int, count: int) -> Hidden:
        """Return the last layer's numbers of `count` rows of the last batch, which embedded: (count, width)."""
        rows = [llama.llama_get_embeddings_ith(self._context, row) for row in range(start, start + count)]
        return np.stack([np.ctypeslib.as_array(row, (self._width,)) for row in rows])

    def abort_while(self, flag: ctypes.Array[ctypes.c_char]) -> None:
        """End any decode while the first byte of `flag` is not 0; a model with a state goes on to the end of its step.

        llama.cpp moves the states of other sequences before it computes, and does not move them back.
        """
        if self._memory_kind() in ("recurrent", "hybrid"):
            return
        self._flag = flag  # llama.cpp keeps a bare pointer
        look_at(self._context, flag)
        if self._aside is not None:
            self._aside.abort_while(flag)
        expect_errors_while(flag)

    def move(self, moves: Row[Move]) -> None:
        """Carry out all moves; cells that no slot holds any more are free at once. Raises EngineError where refused."""
        for move in moves:
            match move:
                case Copy(source, target, start, end):
                    llama.llama_memory_seq_cp(self._memory, source, target, start, end)
                case Cut(slot, start):
                    self._cut(slot, start)
                case SwapOut(slot, key, start, end):
                    self._in_memory[key] = self._pack(slot, start, end)
                case SwapIn(key, slot, start, end):
                    self._unpack(self._in_memory[key], slot, start, end)
                case Gather():
                    self._gather(move)
                case Forget(key):
                    del self._in_memory[key]

    def _cut(self, slot: int, start: int) -> None:
        if not llama.llama_memory_seq_rm(self._memory, slot, start, -1):
            raise EngineError(f"llama.cpp cannot drop the cells of slot {slot} from position {start}")

    def _gather(self, move: Gather) -> None:
        packed = [self._pack(run.slot, run.start, run.end) for run in move.runs]
        for run in move.runs:
            self._cut(run.slot, run.start)
        for run, data in zip(move.runs, packed, strict=True):
            self._unpack(data, run.slot, run.start, run.end)

    def _pack(self, slot: int, start: int, end: int) -> NDArray[np.uint8]:
        """Copy keys and values of a slot's cells out of the cache."""
        llama.llama_memory_seq_cp(self._memory, slot, self._packing, start, end)
        packed = packed_sequence(self._context, self._packing)
        self._cut(self._packing, 0)
        return packed

    def _unpack(self, packed: NDArray[np.uint8], slot: int, start: int, end: int) -> None:
        """Copy keys and values into new cells of a slot."""
        if not self._put(packed, slot, start, end):
            raise EngineError(f"llama.cpp takes a prefix not back: {last_errors() or 'no reason given'}")

    def _put(self, packed: NDArray[np.uint8], slot: int, start: int, end: int) -> bool:
        """Do so; False where there is no room."""
        if not llama.llama_state_seq_set_data(self._context, bytes_of(packed), packed.size, self._packing):
            return False
        llama.llama_memory_seq_cp(self._memory, self._packing, slot, start, end)
        self._cut(self._packing, 0)
        return True

    def clear(self) -> None:
        """Forget all slots, and what lies in memory."""
        llama.llama_memory_clear(self._memory, False)
        self._in_memory.clear()
        if self._aside is not None:
            self._aside.forget()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Begin to parse a constraint in a process of its own."""
        return self._grammars.open(constraint)

    def sampler(self, request: Submit, matcher: Matcher | None) -> Sampler:
        """Make the sampler chain of one request, with its grammar beside it."""
        chain = SamplerChain(request, self._context, self._vocabulary_size)
        if matcher is None:
            return RowSampler(chain, self._rows)
        return ConstrainedSampler(chain, matcher, self._rows.candidates, self._logits)

    def ranking(self, index: int, token: int, count: int) -> Ranking:
        """Return how likely a token is in a row of the last batch, and which are the `count` likeliest."""
        return ranking(self._logits(index), token, count, self.piece)

    def _logits(self, index: int) -> NDArray[np.float32]:
        """View the logits of a row of the last batch; valid until the next one."""
        if index in self._rows.copied:
            return self._rows.copied[index]
        pointer = llama.llama_get_logits_ith(self._context, self._rows.index.get(index, index))
        return np.ctypeslib.as_array(pointer, (self._vocabulary_size,))

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        size = PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer."""
        return bool(llama.llama_vocab_is_eog(self._vocabulary, token))

    def _model_parameters(self, load: Load) -> ctypes.Structure:
        parameters: ctypes.Structure = llama.llama_model_default_params()
        parameters.n_gpu_layers = load.gpu_layers
        parameters.split_mode = load.split_mode
        if self._tensor_split is not None:
            parameters.tensor_split = self._tensor_split
        return parameters

    def _number(self, key: str) -> int | None:
        """Return a whole number of the architecture's own metadata, None where the file has none."""
        architecture, value = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
        llama.llama_model_meta_val_str(self._model, b"general.architecture", architecture, len(architecture))
        name = architecture.value + b"." + key.encode()
        llama.llama_model_meta_val_str(self._model, name, value, len(value))
        return int(value.value) if value.value.isdigit() else None

    def _memory_kind(self) -> Literal["attention", "recurrent", "hybrid", "sliding-window"]:
        if llama.llama_model_is_hybrid(self._model):
            return "hybrid"
        if llama.llama_model_is_recurrent(self._model):
            return "recurrent"
        return "sliding-window" if llama.llama_model_n_swa(self._model) > 0 else "attention"


def _context_parameters(load: Load, slots: int) -> ctypes.Structure:
    parameters: ctypes.Structure = llama.llama_context_default_params()
    parameters.n_ctx = load.cells
    parameters.n_batch = load.batch_tokens
    parameters.n_ubatch = load.batch_tokens
    parameters.n_seq_max = slots
    parameters.n_outputs_max = max(
        slots, EMBED_TOKENS
    )  # llama.cpp aborts with fewer; the logits buffer has that many rows
    parameters.n_threads = parameters.n_threads_batch = load.threads
    parameters.flash_attn_type = load.flash_attention
    parameters.type_k, parameters.type_v = load.type_k, load.type_v
    parameters.kv_unified = True  # without it the cells are divided among the slots
    parameters.no_perf = True
    return parameters


def _require_computed(result: int) -> None:
    if result == NO_ROOM:
        raise NoRoomError
    if result == ABORTED:
        raise AbortedError
    if result != 0:
        raise EngineError(f"llama_decode failed with {result}: {last_errors() or 'no reason given'}")


def _tensor_split(shares: tuple[float, ...]) -> ctypes.Array[ctypes.c_float] | None:
    if not shares:
        return None
    devices = int(llama.llama_max_devices())
    if len(shares) > devices:
        raise EngineError(f"R3MES_TENSOR_SPLIT: found {len(shares)} shares, wanted at most {devices}")
    return (ctypes.c_float * devices)(*shares)
