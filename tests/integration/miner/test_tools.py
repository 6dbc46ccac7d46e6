"""Function calling with the real model, whose file has a template that knows tools, through the openai client."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.integration.miner.stand import MODEL_NAME, Miner, Store, genesis_entry, model_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "London"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
TEXT_AND_CALL = f"Let me look.\n<tool_call>{CALL}</tool_call>"
SAYS_CALL = f"root ::= {json.dumps(TEXT_AND_CALL)}"
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    folder = tmp_path_factory.mktemp("tooled")
    file = folder / "tools.gguf"
    subprocess.run(
        [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", TEMPLATE, model_file(), file],
        check=True,
        capture_output=True,
    )
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    store = Store(folder)
    store.pin(genesis_entry(verification_sha256=digest))
    store.put_model(content, digest=digest)
    with Miner(store) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(tooled: Miner) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tooled.url}/v1", api_key="none", timeout=120, max_retries=0)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_that_must_be_called_is_called_with_arguments_that_match(client: openai.OpenAI, choice: object) -> None:
    tools = [WEATHER] if choice == "required" else [CLOCK, WEATHER]
    answer = client.chat.completions.create(
        model=MODEL_NAME, messages=ASKED, tools=tools, tool_choice=choice, max_tokens=60, temperature=0
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "London")
    assert call.id.startswith("call_")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None

    told = [*ASKED, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 C"}]
    after = client.chat.completions.create(model=MODEL_NAME, messages=told, tools=[WEATHER], max_tokens=12)
    assert after.usage.prompt_tokens > answer.usage.prompt_tokens


def test_a_call_in_a_streamed_answer_comes_as_a_call_and_the_text_before_it_as_text(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL_NAME, messages=ASKED, tools=[WEATHER], stream=True, extra_body={"grammar": SAYS_CALL}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Let me look."
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [(call.index, call.function.name, call.function.arguments) for call in calls] == [
        (0, "get_weather", '{"city": "Paris"}')
    ]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_each_of_several_answers_has_its_own_calls(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL_NAME, messages=ASKED, tools=[WEATHER], n=2, extra_body={"grammar": SAYS_CALL}
    )
    ids = {call.id for choice in answer.choices for call in choice.message.tool_calls}
    assert len(ids) == 2
    assert [choice.message.content for choice in answer.choices] == ["Let me look."] * 2


def test_without_tools_an_answer_that_looks_like_a_call_is_text(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": [WEATHER], "tool_choice": "none"}, {"tools": [CLOCK]}):
        answer = client.chat.completions.create(
            model=MODEL_NAME, messages=ASKED, extra_body={"grammar": SAYS_CALL}, **more
        )
        assert answer.choices[0].message.content == TEXT_AND_CALL
        assert answer.choices[0].message.tool_calls is None


def test_the_model_is_told_of_the_tools(client: openai.OpenAI) -> None:
    def prompt_tokens(**more: object) -> int:
        return client.chat.completions.create(
            model=MODEL_NAME, messages=ASKED, max_tokens=1, **more
        ).usage.prompt_tokens

    assert prompt_tokens(tools=[WEATHER]) > prompt_tokens() + 40
    assert prompt_tokens(tools=[WEATHER], tool_choice="none") == prompt_tokens()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "rm"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "no such name!"}}]}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tools": "get_weather"}, "tools"),
    ],
)
def test_tools_that_cannot_be_used_are_refused_by_name(tooled: Miner, more: dict[str, object], words: str) -> None:
    answer = tooled.chat("x", **more)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_a_model_whose_template_knows_no_tools_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready()
        answer = miner.chat("x", tools=[WEATHER])
        assert answer.status_code == 400
        assert "template" in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "tools"
