"""The two shapes of an answer, whole and in chunks, as OpenAI writes them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.miner.api.running import Running
from services.miner.engine.messages import Output

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one endpoint writes what the engine gave."""

    answer: Callable[[Running, list[Output]], Json]
    opening: Callable[[Running, bool], Json] | None
    chunk: Callable[[Running, Output, bool], Json]
    usage: Callable[[Running], Json]


def _head(running: Running, kind: str, prefix: str) -> Json:
    return {
        "id": f"{prefix}-{running.request_id}",
        "object": kind,
        "created": running.created,
        "model": running.served.name,
        "system_fingerprint": running.served.fingerprint,
    }


def _whole(outputs: list[Output]) -> tuple[str, str | None]:
    return "".join(output.text for output in outputs), outputs[-1].finish if outputs else None


def _chunked(head: Json, choices: list[Json], *, with_usage: bool) -> Json:
    chunk: Json = {**head, "choices": choices}
    if with_usage:
        chunk["usage"] = None  # every chunk but the last has the key, once usage was asked for
    return chunk


def _chat_answer(running: Running, outputs: list[Output]) -> Json:
    text, finish = _whole(outputs)
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**_head(running, "chat.completion", "chatcmpl"), "choices": [choice], "usage": running.usage}


def _chat_delta(running: Running, delta: Json, finish: str | None, *, with_usage: bool) -> Json:
    choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chunked(_head(running, "chat.completion.chunk", "chatcmpl"), [choice], with_usage=with_usage)


def _chat_opening(running: Running, with_usage: bool) -> Json:
    return _chat_delta(running, {"role": "assistant", "content": ""}, None, with_usage=with_usage)


def _chat_chunk(running: Running, output: Output, with_usage: bool) -> Json:
    delta: Json = {"content": output.text} if output.text else {}
    return _chat_delta(running, delta, output.finish, with_usage=with_usage)


def _chat_usage(running: Running) -> Json:
    return {**_head(running, "chat.completion.chunk", "chatcmpl"), "choices": [], "usage": running.usage}


def _completion_answer(running: Running, outputs: list[Output]) -> Json:
    text, finish = _whole(outputs)
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    return {**_head(running, "text_completion", "cmpl"), "choices": [choice], "usage": running.usage}


def _completion_chunk(running: Running, output: Output, with_usage: bool) -> Json:
    choice: Json = {"text": output.text, "index": 0, "logprobs": None, "finish_reason": output.finish}
    return _chunked(_head(running, "text_completion", "cmpl"), [choice], with_usage=with_usage)


def _completion_usage(running: Running) -> Json:
    return {**_head(running, "text_completion", "cmpl"), "choices": [], "usage": running.usage}


CHAT = Shape(_chat_answer, _chat_opening, _chat_chunk, _chat_usage)
COMPLETION = Shape(_completion_answer, None, _completion_chunk, _completion_usage)
