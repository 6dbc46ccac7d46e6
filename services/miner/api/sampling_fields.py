"""How the next token is chosen, as a request writes it: OpenAI's fields and llama-server's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, field_validator

from services.miner.api.errors import invalid
from services.miner.api.lenient import MAX_TOKEN_ID, Lenient
from services.miner.engine.messages import Sampling

MAX_BIASES = 300
DEFAULT = Sampling()
# Fields that go to the engine as they are.
SAME_MEANING = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "repeat_last_n",
)

Bias = Annotated[float, Field(ge=-100, le=100)]


class SamplingFields(Lenient):
    """What a field leaves out is as `Sampling` has it."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=100)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    seed: int | None = None
    logit_bias: Annotated[dict[str, Bias], Field(max_length=MAX_BIASES)] | None = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _few(cls, value: object) -> object:
        """Count before each is looked at: a large body of wrong ones would end in as many errors."""
        if isinstance(value, dict) and len(value) > MAX_BIASES:
            raise ValueError(f"at most {MAX_BIASES} tokens, not {len(value)}")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and int(key) <= MAX_TOKEN_ID):
                raise ValueError("keys must be token ids")
        return value

    def sampling(self, seed: int, vocabulary_size: int) -> Sampling:
        """Return how tokens are chosen; `seed` where the request gives none. Raises ApiError for a foreign token."""
        biases = tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items())
        if any(token >= vocabulary_size for token, _ in biases):
            raise invalid(f"logit_bias: the vocabulary has {vocabulary_size} tokens", "logit_bias")
        given = {name: getattr(self, name) for name in SAME_MEANING if getattr(self, name) is not None}
        return replace(
            Sampling(**given),
            top_k=DEFAULT.top_k if self.top_k is None else max(self.top_k, 0),
            seed=(seed if self.seed is None else self.seed) & 0xFFFFFFFF,
            logit_bias=biases,
        )
