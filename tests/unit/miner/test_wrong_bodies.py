"""A large body full of wrong entries costs a few errors, not one for each: they are all made on the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.miner.api.errors import describe_validation
from services.miner.api.schema import MAX_PARTS, ChatRequest, CompletionRequest, EmbeddingRequest

BYTES = 4 * 1024 * 1024  # as R3MES_MAX_BODY_BYTES has it
FEW = 10
USER = {"role": "user", "content": "x"}


def errors_of(model: type[BaseModel], body: Mapping[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"model": "m", **body})
    return caught.value


def chat(**body: object) -> tuple[type[BaseModel], dict[str, object]]:
    return ChatRequest, {"messages": [USER], **body}


@pytest.mark.parametrize(
    ("request_and_body", "param"),
    [
        (chat(messages=[1] * (BYTES // 2)), "messages"),
        (chat(messages=[{**USER, "content": [1] * (BYTES // 2)}]), "messages.0.content"),
        (chat(messages=[{**USER, "content": [1] * 500}] * 4_000), "messages.0.content"),
        (chat(messages=[{**USER, "content": [{}] * (BYTES // 3)}]), "messages.0.content"),
        (chat(messages=[{**USER, "content": [{"type": "text"}] * 100}] * 1_000), "messages.0.content"),
        (chat(messages=[{**USER, "tool_calls": [1] * 100}] * 4_000), "messages.0.tool_calls"),
        (chat(stop=[1] * (BYTES // 2)), "stop"),
        (chat(tools=[1] * (BYTES // 2)), "tools"),
        (chat(logit_bias={str(token): "" for token in range(BYTES // 12)}), "logit_bias"),
        ((CompletionRequest, {"prompt": [[]] * (BYTES // 3)}), "prompt"),
        ((CompletionRequest, {"prompt": [-1] * (BYTES // 3)}), "prompt"),
        ((CompletionRequest, {"prompt": ["\ud800"] * (BYTES // 9)}), "prompt"),
        ((EmbeddingRequest, {"input": [[]] * (BYTES // 3)}), "input"),
        ((EmbeddingRequest, {"input": [[""] * (BYTES // 3)]}), "input"),
        ((EmbeddingRequest, {"input": [["", []] * 500] * 2_000}), "input"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_large_body_of_wrong_entries_gets_a_few_errors_and_a_name(
    request_and_body: tuple[type[BaseModel], dict[str, object]], param: str
) -> None:
    error = errors_of(*request_and_body)
    assert error.error_count() <= FEW
    answer = describe_validation(error.errors()[0])
    assert answer.status == 400
    assert (answer.param or "").startswith(param)


def test_a_message_has_as_many_parts_as_anyone_writes_and_no_more() -> None:
    part = {"type": "text", "text": "x"}
    model, body = chat(messages=[{**USER, "content": [part] * MAX_PARTS}])
    model.model_validate({"model": "m", **body})
    assert "at most 4096" in str(errors_of(*chat(messages=[{**USER, "content": [part] * (MAX_PARTS + 1)}])))
