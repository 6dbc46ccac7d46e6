"""PyTorch behind the backend interface, for files that llama.cpp cannot load: `transformers` reads the same GGUF.

Weights are unpacked to `float_type`, each sequence has a cache of its own, and the slices of a step are computed one
after another. The file is opened by the descriptor that was checked; nothing is looked for in the network.
Imported only where it is used, as the import alone takes seconds. Order: as with `LlamaBackend`.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence as Row
from typing import Any

import numpy as np
import torch
import transformers

from services.miner.engine.backend import AbortedError, Hidden, Pooling, Sampler
from services.miner.engine.cache_moves import Cut, Move
from services.miner.engine.constrained import ConstrainedSampler
from services.miner.engine.logprobs import Ranking, ranking
from services.miner.engine.messages import Load, Loaded, Submit
from services.miner.engine.sampling import Rows, RowSampler, SamplerChain
from services.miner.engine.scheduler import Slice
from services.miner.grammar.matcher import ConstraintError, Matcher, Nursery
from services.miner.grammar.wire import Constraint
from services.miner.model.torch_vocabulary import DESCRIPTORS, REFUSALS
from services.miner.model.vocabulary import Vocabulary, open_vocabulary
from shared.errors import EngineError


class TorchBackend:
    """A model and a cache for each slot. Raises EngineError from the constructor when transformers refuses the file."""

    def __init__(self, load: Load) -> None:
        started = time.monotonic()
        self._device = torch.device("cuda" if load.gpu_layers else "cpu")
        if load.gpu_layers and not torch.cuda.is_available():
            raise EngineError("this build of PyTorch can use no GPU here")
        torch.set_num_threads(load.threads)
        self._model = _load_model(load, self._device)
        self._vocabulary = open_vocabulary(load.descriptor, torch=True)
        self._size = min(self._vocabulary.size, int(self._model.config.vocab_size))
        self._rows = Rows(self._size)  # all copied
        self._grammars = Nursery(load.descriptor, self._size)
        self._caches: dict[int, transformers.DynamicCache] = {}
        self._hidden: list[Hidden] = []  # of the last batch, where it embedded
        self.pooling: Pooling = "mean"
        self._pieces: dict[int, bytes] = {}
        self._flag = ctypes.create_string_buffer(1)
        self.cells = load.cells
        self.load_seconds = time.monotonic() - started

    def loaded(self) -> Loaded:
        """Describe the model for the API process."""
        weights = list(self._model.parameters())
        kind, config = str(self._model.dtype).removeprefix("torch."), self._model.config
        return Loaded(
            cells=self.cells,
            training_tokens=int(getattr(config, "max_position_embeddings", 0) or 0),
            description=f"{config.model_type} in PyTorch {torch.__version__}, {kind} on {self._device.type}",
            parameters=sum(weight.numel() for weight in weights),
            weight_bytes=sum(weight.numel() * weight.element_size() for weight in weights),
            memory="attention",
            seconds=self.load_seconds,
        )

    def abort_while(self, flag: ctypes.Array[ctypes.c_char]) -> None:
        """End any decode before its next slice while the first byte of `flag` is not 0."""
        self._flag = flag

    def decode(self, slices: Row[Slice]) -> None:
        """Compute all slices, one after another; raises AbortedError, or EngineError."""
        self._rows.clear()
        self._hidden.clear()
        row = -1
        with torch.inference_mode():
            for part in slices:
                if self._flag[0] != b"\0":
                    raise AbortedError  # the requests of this batch are gone, and their caches with them
                row += part.count
                if part.sequence.embeds:
                    hidden = self._forward(part, self._model.base_model).last_hidden_state[0]
                    self._hidden.append(hidden.float().cpu().numpy())
                else:
                    logits = self._forward(part, self._model, logits_to_keep=1).logits[0, -1, : self._size]
                    if part.samples:
                        self._rows.copied[row] = logits.float().cpu().numpy()

    def hidden(self, start: int, count: int) -> Hidden:
        """Return the last layer's numbers of `count` rows of the last batch, which embedded: (count, width)."""
        return np.concatenate(self._hidden)[start : start + count]

    def _forward(self, part: Slice, module: torch.nn.Module, **how: int) -> Any:  # noqa: ANN401 - transformers' own
        cache = self._caches.get(part.slot)
        if cache is None:
            cache = self._caches[part.slot] = transformers.DynamicCache(config=self._model.config)
        if (found := int(cache.get_seq_length())) != part.start:
            raise EngineError(f"slot {part.slot} holds {found} tokens, wanted {part.start}")
        tokens = torch.tensor([part.tokens], device=self._device)
        try:
            return module(input_ids=tokens, cache=cache, use_cache=True, **how)
        except REFUSALS as error:  # out of memory, above all
            raise EngineError(f"PyTorch fails: {error}") from error

    def move(self, moves: Row[Move]) -> None:
        """Forget what a slot held. Nothing is shared here, so no other move is ever wanted."""
        for move in moves:
            if not isinstance(move, Cut) or move.start:
                raise EngineError(f"PyTorch's cache cannot do {move}")
            self._caches.pop(move.slot, None)

    def clear(self) -> None:
        """Forget all slots."""
        self._caches.clear()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Begin to parse a constraint in a process of its own; llama.cpp matches it, so it has to know the words."""
        if not isinstance(self._vocabulary, Vocabulary):
            raise ConstraintError("llama.cpp cannot read the vocabulary of this model, so no answer can be constrained")
        return self._grammars.open(constraint)

    def sampler(self, request: Submit, matcher: Matcher | None) -> Sampler:
        """Make the sampler chain of one request, with its grammar beside it."""
        chain = SamplerChain(request, None, self._size)
        if matcher is None:
            return RowSampler(chain, self._rows)
        return ConstrainedSampler(chain, matcher, self._rows.candidates, self._rows.copied.__getitem__)

    def ranking(self, index: int, token: int, count: int) -> Ranking:
        """Return how likely a token is in a row of the last batch, and which are the `count` likeliest."""
        return ranking(self._rows.copied[index], token, count, self.piece)

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._vocabulary.piece(token, special=False)
        return piece

    def ends(self, token: int) -> bool:
        """Tell whether a token ends the answer."""
        return self._vocabulary.ends(token)


def _load_model(load: Load, device: torch.device) -> transformers.PreTrainedModel:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    float_type = getattr(torch, load.float_type)
    if device.type == "cuda" and float_type is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        float_type = torch.float16
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            DESCRIPTORS,
            gguf_file=str(load.descriptor),
            dtype=float_type,
            device_map={"": device},
            local_files_only=True,
            trust_remote_code=False,
        )
    except REFUSALS as error:
        raise EngineError(f"transformers refuses the file: {error}") from error
    if getattr(model, "_is_stateful", False):
        raise EngineError("PyTorch serves attention models alone; this one has a state")
    return model.eval()
