"""The miner's settings: each limit with its unit and its reason. A setting whose feature is not there is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from services.miner.engine.prefix_cache import MAX_SLOTS
from services.miner.model.gguf_types import CACHE_TYPES
from shared.errors import ConfigurationError
from shared.settings import CommonSettings, Listen, ListenAddress, load_settings, secret_values, split_list

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

    listen: Listen = Field(ListenAddress("127.0.0.1", 8080), alias="R3MES_LISTEN")
    api_keys: SecretStr | None = Field(None, alias="R3MES_API_KEYS")
    api_keys_file: Path | None = Field(None, alias="R3MES_API_KEYS_FILE")

    model: str | None = Field(None, alias="R3MES_MODEL")
    rehash: Literal["changed", "always"] = Field("changed", alias="R3MES_MINER_REHASH")

    engine: Literal["auto", "llama", "torch"] = Field("auto", alias="R3MES_ENGINE")
    n_gpu_layers: AutoOrLayers = Field("auto", alias="R3MES_N_GPU_LAYERS")
    n_ctx: AutoOrPositive = Field("auto", alias="R3MES_N_CTX")
    threads: AutoOrPositive = Field("auto", alias="R3MES_THREADS")
    flash_attention: Literal["auto", "on", "off"] = Field("auto", alias="R3MES_FLASH_ATTN")
    kv_type_k: CacheType = Field("f16", alias="R3MES_KV_TYPE_K")
    kv_type_v: CacheType = Field("f16", alias="R3MES_KV_TYPE_V")
    split_mode: Literal["none", "layer", "row"] = Field("layer", alias="R3MES_SPLIT_MODE")
    tensor_split: Shares = Field((), alias="R3MES_TENSOR_SPLIT")

    prefix_cache_bytes: AutoOrBytes = Field("auto", alias="R3MES_PREFIX_CACHE_BYTES")
    context_overflow: Literal["error", "truncate"] = Field("error", alias="R3MES_CONTEXT_OVERFLOW")
    max_sequences: int = Field(16, alias="R3MES_MAX_SEQUENCES", gt=0, le=MAX_SLOTS)
    max_queue: int = Field(64, alias="R3MES_MAX_QUEUE", ge=0)
    max_prompt_tokens: Positive | None = Field(None, alias="R3MES_MAX_PROMPT_TOKENS")
    # 4 MiB of JSON is a prompt of about a million tokens, longer than any context that fits a host like this.
    max_body_bytes: Positive = Field(4 * 1024 * 1024, alias="R3MES_MAX_BODY_BYTES")
    # A long answer on a processor takes minutes; ten of them are a client that forgot to set a limit.
    request_seconds: float = Field(600.0, alias="R3MES_REQUEST_SECONDS", gt=0)
    drain_seconds: float = Field(30.0, alias="R3MES_DRAIN_SECONDS", ge=0)
    idle_unload_seconds: float | None = Field(None, alias="R3MES_IDLE_UNLOAD_SECONDS", ge=0)

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
    """Read the environment; raises ConfigurationError, also for what this version cannot do."""
    settings = load_settings(MinerSettings)
    if settings.engine == "torch":
        raise ConfigurationError("R3MES_ENGINE=torch is not supported by this version", next_step="use auto or llama")
    return settings
