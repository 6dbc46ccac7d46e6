"""The miner's settings: each limit with its unit and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from services.miner.engine.prefix_cache import MAX_SLOTS
from services.miner.model.gguf_types import CACHE_TYPES
from shared.settings import CommonSettings, Listen, ListenAddress, SentSecret, load_settings, secret_values, split_list

Positive = Annotated[int, Field(gt=0)]
AutoOrPositive = Literal["auto"] | Positive
AutoOrBytes = Literal["auto"] | Annotated[int, Field(ge=0)]
AutoOrLayers = Literal["auto"] | Annotated[int, Field(ge=-1)]
CacheType = Annotated[str, Field(pattern=f"^({'|'.join(CACHE_TYPES)})$")]
Shares = Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], BeforeValidator(split_list)]

SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class MinerSettings(CommonSettings):
    """Everything that the miner takes from the environment."""

    listen: Listen = Field(
        ListenAddress("127.0.0.1", 8080),
        alias="R3MES_LISTEN",
        description="where its API and metrics are; images set `0.0.0.0:8080`",
    )
    api_keys: SentSecret | None = Field(
        None,
        alias="R3MES_API_KEYS",
        description="keys for `/v1`, separated by commas; those of a file one a line, and they may change without a "
        "restart",
    )
    api_keys_file: Path | None = Field(None, alias="R3MES_API_KEYS_FILE")

    model: str | None = Field(
        None,
        alias="R3MES_MODEL",
        description="the `model_name` that this miner serves; unset: the first of the genesis",
    )
    rehash: Literal["changed", "always"] = Field(
        "changed", alias="R3MES_MINER_REHASH", description="hash before loading when receipt and file differ, or always"
    )

    engine: Literal["auto", "llama", "torch"] = Field(
        "auto",
        alias="R3MES_ENGINE",
        description="`auto`: PyTorch where llama.cpp refuses the file and the extra `torch` is installed (below)",
    )
    n_gpu_layers: AutoOrLayers = Field(
        "auto",
        alias="R3MES_N_GPU_LAYERS",
        description="layers on the GPU, `-1` for all; a number that is impossible stops the start",
    )
    n_ctx: AutoOrPositive = Field(
        "auto", alias="R3MES_N_CTX", description="tokens of the KV cache that all sequences share"
    )
    threads: AutoOrPositive = Field(
        "auto", alias="R3MES_THREADS", description="CPU threads; `auto` looks at affinity and the container's quota"
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", alias="R3MES_FLASH_ATTN", description="flash attention; `off` not with a quantised `R3MES_KV_TYPE_V`"
    )
    kv_type_k: CacheType = Field("f16", alias="R3MES_KV_TYPE_K", description="type of the KV cache's keys")
    kv_type_v: CacheType = Field("f16", alias="R3MES_KV_TYPE_V", description="type of its values")
    split_mode: Literal["none", "layer", "row"] = Field(
        "layer",
        alias="R3MES_SPLIT_MODE",
        description="several GPUs: the first alone, by layers, or by rows. `auto` layers are those that fit each "
        "GPU by itself",
    )
    tensor_split: Shares = Field(
        (), alias="R3MES_TENSOR_SPLIT", description="shares of several GPUs; unset: by their free memory"
    )

    prefix_cache_bytes: AutoOrBytes = Field(
        "auto",
        alias="R3MES_PREFIX_CACHE_BYTES",
        description="memory for prefixes that the KV cache gave up; `auto`: a quarter of what is left, at most 2 "
        "GiB. Not used on a GPU",
    )
    context_overflow: Literal["error", "truncate"] = Field(
        "error",
        alias="R3MES_CONTEXT_OVERFLOW",
        description="`truncate`: a prompt that does not fit loses its oldest messages ([api.md](api.md))",
    )
    max_sequences: int = Field(
        16, alias="R3MES_MAX_SEQUENCES", description="requests that run at once", gt=0, le=MAX_SLOTS
    )
    max_queue: int = Field(64, alias="R3MES_MAX_QUEUE", description="requests that wait; the next one gets 429", ge=0)
    max_prompt_tokens: Positive | None = Field(
        None, alias="R3MES_MAX_PROMPT_TOKENS", description="a bound below the context window"
    )
    # 4 MiB of JSON is a prompt of about a million tokens, longer than any context that fits a host like this.
    max_body_bytes: Positive = Field(
        4 * 1024 * 1024, alias="R3MES_MAX_BODY_BYTES", description="the largest request body"
    )
    # A long answer on a processor takes minutes; ten of them are a client that forgot to set a limit.
    request_seconds: float = Field(600.0, alias="R3MES_REQUEST_SECONDS", description="the longest request", gt=0)
    drain_seconds: float = Field(
        30.0, alias="R3MES_DRAIN_SECONDS", description="how long SIGTERM waits for requests that run", ge=0
    )
    idle_unload_seconds: float | None = Field(
        None,
        alias="R3MES_IDLE_UNLOAD_SECONDS",
        description="without a request for so long, the model leaves memory; the next request waits until it is back",
        ge=0,
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """The API keys at the start, none when the API is open."""
        return secret_values(self.api_keys)

    @model_validator(mode="after")
    def _shares_divide_something(self) -> Self:
        if self.tensor_split and not sum(self.tensor_split):
            raise ValueError("R3MES_TENSOR_SPLIT needs at least one share above 0")
        if self.flash_attention == "off" and CACHE_TYPES[self.kv_type_v][2] > 1:
            raise ValueError(
                f"R3MES_KV_TYPE_V={self.kv_type_v} needs flash attention: set R3MES_FLASH_ATTN=auto, or f16"
            )
        return self


def load_miner_settings() -> MinerSettings:
    """Read the environment; raises ConfigurationError."""
    return load_settings(MinerSettings)
