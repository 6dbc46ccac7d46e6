"""What travels between the API process and the engine process: frozen values, one JSON document a frame.

JSON and not pickle, so that neither side runs what the other sends. The order of a life: `Load` → `Loaded` or
`LoadFailed`; then any number of `Submit` and `Cancel` one way and of `Step` the other; closing the channel ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from services.miner.grammar.wire import Constraint
from shared.store.records import StatIdentity

EngineKind = Literal["llama", "torch"]
FloatType = Literal["float32", "bfloat16"]


class FinishReason(StrEnum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1 are off.

    `repeat_last_n` counts tokens, 0 is off and -1 all of them. `mirostat` is 0 (off), 1 or 2; `mirostat_tau` is the
    wanted surprise in bits, `mirostat_eta` how fast it is sought.
    """

    temperature: float = 1.0
    top_k: int = 40
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model behind an inherited descriptor; first message of a life.

    `cells` are the tokens that the unified cache holds for all sequences together, `stored` those of prefixes that may
    lie in memory beside it. `flash_attention` is -1 (auto), 0 or
    1; `type_k` and `type_v` are ggml type numbers; `tensor_split` is empty for an even split. With `engine` torch these
    three mean nothing, and weights are unpacked to `float_type`.
    """

    descriptor: int
    identity: StatIdentity
    cells: int
    sequences: int
    batch_tokens: int
    prefill_tokens: int
    gpu_layers: int
    threads: int
    flash_attention: int
    type_k: int
    type_v: int
    split_mode: int
    tensor_split: tuple[float, ...] = ()
    stored: int = 0
    engine: EngineKind = "llama"
    float_type: FloatType = "float32"
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class Submit:
    """Generate up to `max_tokens` after `prompt` (token ids, not empty) until the end token or one of `stop`.

    With a `constraint` nothing but what it matches is generated, and the end token ends in any case. `logprobs` asks
    for the log probability of each token and of that many likeliest ones beside it. With `embeds` nothing is generated
    (`max_tokens` is 0): the one output has the prompt's embedding. Without `reuses` nothing of the prompt is taken from
    the cache.
    """

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    ignore_end: bool = False
    constraint: Constraint | None = None
    logprobs: int | None = None
    embeds: bool = False
    reuses: bool = True
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this request any more: free what it holds."""

    request_id: str
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is in memory. `cells` is what the cache really has, `training_tokens` the model's own context."""

    cells: int
    training_tokens: int
    description: str
    parameters: int
    weight_bytes: int
    memory: Literal["attention", "recurrent", "hybrid", "sliding-window"]
    seconds: float
    kind: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded; `reason` is llama.cpp's own last words where it said any.

    `gpu_gone`: nothing is wrong with the file, the GPU is not there that it was to be loaded to.
    """

    reason: str
    gpu_gone: bool = False
    kind: Literal["load-failed"] = "load-failed"


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A token's bytes and the natural logarithm of its probability, before any sampling parameter."""

    piece: tuple[int, ...]
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A generated token, the likeliest ones in its place, and the character of the answer where its text begins."""

    chosen: Likelihood
    likeliest: tuple[Likelihood, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Output:
    """What one step added to one request: showable text, sampled tokens, and how it ended if it did.

    `logprobs` are of the tokens whose text is shown by now. An error that the request is to blame for is `refused`.
    `reused` comes with the first token: how many tokens of the prompt were in the cache already. `embedding` has
    length 1.
    """

    request_id: str
    text: str
    tokens: int
    finish: FinishReason | None = None
    error: str = ""
    refused: bool = False
    logprobs: tuple[TokenLogprobs, ...] = ()
    reused: int = 0
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full the engine is: sequences running and waiting, cells in use, preemptions since the start.

    `stored` are the tokens of unused prefixes that lie in memory.
    """

    running: int = 0
    waiting: int = 0
    cells_used: int = 0
    cells: int = 1
    preemptions: int = 0
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the engine: who left the queue, what came out, how full it is."""

    outputs: tuple[Output, ...]
    occupancy: Occupancy
    started: tuple[str, ...] = ()
    kind: Literal["step"] = "step"


ToEngine = Load | Submit | Cancel
FromEngine = Loaded | LoadFailed | Step

TO_ENGINE: TypeAdapter[ToEngine] = TypeAdapter(Annotated[ToEngine, Field(discriminator="kind")])
FROM_ENGINE: TypeAdapter[FromEngine] = TypeAdapter(Annotated[FromEngine, Field(discriminator="kind")])
