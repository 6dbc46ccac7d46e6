"""What a request may hold. Unknown fields are ignored, as OpenAI does; wrong types and values name the field.

What OpenAI offers and this version does not is refused by name: an ignored `tools` would be a wrong answer.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from services.miner.api.errors import invalid
from services.miner.engine.messages import Sampling

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_BIASES = 300
MAX_MESSAGES = 4_096
MAX_TOKEN_ID = 2**31 - 1
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions


def _whole(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can write and no text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]


class Lenient(BaseModel):
    """Strict about types, silent about unknown fields."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class StreamOptions(Lenient):
    """How a stream ends."""

    include_usage: bool | None = None


class GenerationRequest(Lenient):
    """What both endpoints take."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "n": (1,),
        "grammar": ("",),
        "response_format": ({"type": "text"},),
    }

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: int | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES)] | None = (
        None
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None

    n: Any = None
    grammar: Any = None
    response_format: Any = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and int(key) <= MAX_TOKEN_ID):
                raise ValueError("keys must be token ids")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage numbers."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def refuse_unsupported(self) -> None:
        """Raise ApiError for a field that this version cannot honour."""
        for name, allowed in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise invalid(f"{name} is not supported by this version", name, "unsupported_parameter")

    def sampling(self, seed: int, vocabulary_size: int) -> Sampling:
        """Return how tokens are chosen; `seed` where the request gives none. Raises ApiError for a foreign token."""
        biases = tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items())
        if any(token >= vocabulary_size for token, _ in biases):
            raise invalid(f"logit_bias: the vocabulary has {vocabulary_size} tokens", "logit_bias")
        default = Sampling()
        return Sampling(
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_k=default.top_k if self.top_k is None else max(self.top_k, 0),
            top_p=default.top_p if self.top_p is None else self.top_p,
            min_p=default.min_p if self.min_p is None else self.min_p,
            repeat_penalty=default.repeat_penalty if self.repeat_penalty is None else self.repeat_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            seed=seed if self.seed is None else self.seed & 0xFFFFFFFF,
            logit_bias=biases,
        )


class ContentPart(Lenient):
    """One part of a message; text alone."""

    type: Literal["text"]
    text: Text


class ChatMessage(Lenient):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ContentPart] | None

    def plain(self) -> dict[str, str]:
        """Return role and text, as templates want them."""
        parts = [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(parts)}


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationRequest.unsupported,
        "tools": ([],),
        "functions": ([],),
        "logprobs": (False,),
        "top_logprobs": (0,),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    tools: Any = None
    functions: Any = None
    logprobs: Any = None
    top_logprobs: Any = None

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of the answer, None for as many as fit."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationRequest.unsupported,
        "best_of": (1,),
        "echo": (False,),
        "logprobs": (),
        "suffix": ("",),
    }

    prompt: Text | list[TokenId] | list[Text]

    best_of: Any = None
    echo: Any = None
    logprobs: Any = None
    suffix: Any = None

    @property
    def wanted_tokens(self) -> int:
        """Most tokens of the answer."""
        return self.max_tokens or COMPLETION_TOKENS
