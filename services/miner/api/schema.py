"""What a request may hold. Unknown fields are ignored, as OpenAI does; wrong types and values name the field.

What OpenAI offers and this version does not is refused by name: an ignored `functions` would be a wrong answer.
Lists end at their first wrong entry (`fail_fast`): millions of errors would keep the event loop for seconds.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from services.miner.api.constraint import ConstraintFields
from services.miner.api.errors import invalid
from services.miner.api.lenient import Lenient, Text, TokenId
from services.miner.api.sampling_fields import SamplingFields
from services.miner.api.tools.declared import MAX_TOOLS, ToolFields
from services.miner.grammar.wire import Constraint

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_MESSAGES = 4_096
MAX_PARTS = 4_096  # of one message
MAX_CHOICES = 128  # OpenAI's; `R3MES_MAX_SEQUENCES` is the other limit
MAX_TEXTS = 2_048  # OpenAI's, of one request for embeddings
MAX_CHAT_LOGPROBS = 20  # OpenAI's
MAX_LOGPROBS = 5  # OpenAI's for /v1/completions
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions

Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Tokens = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class StreamOptions(Lenient):
    """How a stream ends."""

    include_usage: bool | None = None


class GenerationRequest(SamplingFields, ConstraintFields):
    """What both endpoints take."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {}

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None

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

    @property
    def likeliest(self) -> int | None:
        """How many likeliest tokens are told with each token's log probability; None for no log probabilities."""
        raise NotImplementedError

    def refuse_unsupported(self) -> None:
        """Raise ApiError for a field that this version cannot honour."""
        for name, allowed in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise invalid(f"{name} is not supported by this version", name, "unsupported_parameter")


class ContentPart(Lenient):
    """One part of a message; text alone."""

    type: Literal["text"]
    text: Text


class FunctionCall(Lenient):
    """A call as an earlier answer told it; the arguments are JSON."""

    name: Text
    arguments: Text


class MadeCall(Lenient):
    """One call of an earlier answer."""

    id: Text
    type: Literal["function"] = "function"
    function: FunctionCall

    def plain(self) -> dict[str, Any]:
        """Return it as templates want it: with the arguments as an object where they are one."""
        try:
            arguments = json.loads(self.function.arguments)
        except (ValueError, RecursionError):
            arguments = self.function.arguments
        return {"id": self.id, "type": self.type, "function": {"name": self.function.name, "arguments": arguments}}


class ChatMessage(Lenient):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None
    tool_calls: Annotated[list[MadeCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _calls_need_no_text(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("tool_calls") and "content" not in given:
            return {**given, "content": None}
        return given

    def plain(self) -> dict[str, Any]:
        """Return role and text, as templates want them."""
        parts = [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": "".join(parts),
        }
        if self.role == "assistant" and self.tool_calls:
            message["tool_calls"] = [call.plain() for call in self.tool_calls]
        if self.role == "tool" and self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class ChatRequest(ToolFields, GenerationRequest):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"functions": ([],)}

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_CHAT_LOGPROBS)] | None = None

    functions: Any = None

    def constraint(self) -> Constraint | None:
        """Return what the answer must match; a tool that must be called is a constraint as well."""
        found, forced = super().constraint(), self.forced()
        if found is not None and forced is not None:
            raise invalid("tool_choice: together with grammar or response_format it leaves no answer", "tool_choice")
        return found or forced

    @property
    def likeliest(self) -> int | None:
        """As `top_logprobs` says, which wants `logprobs`; raises ApiError without."""
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs: only with logprobs", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of the answer, None for as many as fit."""
        return self.max_completion_tokens or self.max_tokens


class EmbeddingRequest(Lenient):
    """`POST /v1/embeddings`."""

    model: Text
    input: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    @property
    def texts(self) -> list[str | list[int]]:
        """The texts, each as a string or as token ids."""
        if isinstance(self.input, str):
            return [self.input]
        texts: list[str | list[int]] = []
        tokens: list[int] = []
        for each in self.input:
            if isinstance(each, int):
                tokens.append(each)
            else:
                texts.append(each)
        return [tokens] if tokens else texts


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
    }

    prompt: Text | Annotated[list[TokenId], Field(fail_fast=True)] | Annotated[list[Text], Field(fail_fast=True)]
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    best_of: Any = None
    echo: Any = None
    suffix: Any = None

    @property
    def likeliest(self) -> int | None:
        """As `logprobs` says."""
        return self.logprobs

    @property
    def wanted_tokens(self) -> int:
        """Most tokens of the answer."""
        return self.max_tokens or COMPLETION_TOKENS
