"""The two shapes of an answer, whole and in chunks, as OpenAI writes them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.miner.api import logprobs
from services.miner.api.choices import Choice
from services.miner.api.running import Running
from services.miner.engine.messages import Output

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one endpoint writes what the engine gave; `opening` is of one choice."""

    answer: Callable[[Running, list[Choice]], Json]
    opening: Callable[[Running, int, bool], Json] | None
    chunk: Callable[[Running, Choice, bool], Json]
    usage: Callable[[Running], Json]


def _head(running: Running, kind: str, prefix: str) -> Json:
    return {
        "id": f"{prefix}-{running.request_id}",
        "object": kind,
        "created": running.created,
        "model": running.served.name,
        "system_fingerprint": running.served.fingerprint,
    }


def _by_index(running: Running, choices: list[Choice]) -> list[list[Choice]]:
    return [[choice for choice in choices if choice.index == index] for index in range(running.count)]


def _whole(choices: list[Choice]) -> tuple[str, str | None, list[Output]]:
    text = "".join(choice.output.text for choice in choices)
    return text, choices[-1].finish if choices else None, [choice.output for choice in choices]


def _calls(running: Running, choice: Choice) -> list[Json]:
    return [
        {
            "id": f"call_{running.request_id}_{choice.index}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(choice.calls, choice.first_call)
    ]


def _chunked(head: Json, choices: list[Json], *, with_usage: bool) -> Json:
    chunk: Json = {**head, "choices": choices}
    if with_usage:
        chunk["usage"] = None  # every chunk but the last has the key, once usage was asked for
    return chunk


def _chat_answer(running: Running, choices: list[Choice]) -> Json:
    written = []
    for index, parts in enumerate(_by_index(running, choices)):
        text, finish, outputs = _whole(parts)
        calls = [call for part in parts for call in _calls(running, part)]
        message: Json = {"role": "assistant", "content": None if calls and not text else text, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        found = None if running.logprobs is None else logprobs.of_chat(outputs)
        written.append({"index": index, "message": message, "logprobs": found, "finish_reason": finish})
    return {**_head(running, "chat.completion", "chatcmpl"), "choices": written, "usage": running.usage}


def _chat_delta(running: Running, choice: Json, *, with_usage: bool) -> Json:
    return _chunked(_head(running, "chat.completion.chunk", "chatcmpl"), [choice], with_usage=with_usage)


def _chat_opening(running: Running, index: int, with_usage: bool) -> Json:
    delta = {"role": "assistant", "content": ""}
    choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return _chat_delta(running, choice, with_usage=with_usage)


def _chat_chunk(running: Running, choice: Choice, with_usage: bool) -> Json:
    output = choice.output
    delta: Json = {"content": output.text} if output.text else {}
    if choice.calls:
        numbered = enumerate(_calls(running, choice), choice.first_call)
        delta["tool_calls"] = [{"index": number, **call} for number, call in numbered]
    found = logprobs.of_chat([output]) if output.logprobs else None
    written: Json = {"index": choice.index, "delta": delta, "logprobs": found, "finish_reason": choice.finish}
    return _chat_delta(running, written, with_usage=with_usage)


def _chat_usage(running: Running) -> Json:
    return {**_head(running, "chat.completion.chunk", "chatcmpl"), "choices": [], "usage": running.usage}


def _completion_answer(running: Running, choices: list[Choice]) -> Json:
    written = []
    for index, parts in enumerate(_by_index(running, choices)):
        text, finish, outputs = _whole(parts)
        count = running.logprobs
        found = None if count is None else logprobs.of_completion(outputs, likeliest=count)
        written.append({"text": text, "index": index, "logprobs": found, "finish_reason": finish})
    return {**_head(running, "text_completion", "cmpl"), "choices": written, "usage": running.usage}


def _completion_chunk(running: Running, choice: Choice, with_usage: bool) -> Json:
    output, count = choice.output, running.logprobs or 0
    found = logprobs.of_completion([output], likeliest=count) if output.logprobs else None
    written: Json = {"text": output.text, "index": choice.index, "logprobs": found, "finish_reason": output.finish}
    return _chunked(_head(running, "text_completion", "cmpl"), [written], with_usage=with_usage)


def _completion_usage(running: Running) -> Json:
    return {**_head(running, "text_completion", "cmpl"), "choices": [], "usage": running.usage}


CHAT = Shape(_chat_answer, _chat_opening, _chat_chunk, _chat_usage)
COMPLETION = Shape(_completion_answer, None, _completion_chunk, _completion_usage)
