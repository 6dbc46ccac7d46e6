"""Answers that must match something: they do, and whoever sends a hostile grammar harms only that request."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import openai
import psutil
import pytest

from tests.integration.miner.stand import MODEL_NAME, Miner, chat_body, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASK = "Describe a cat."
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "colour": {"enum": ["red", 'the "blue" one', "grün"]},
    },
    "required": ["name", "age", "colour"],
}


def schema_format(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


def content(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_has_the_shape_that_its_schema_wants(miner: Miner, temperature: float) -> None:
    fields = {"response_format": schema_format(PERSON), "temperature": temperature, "top_k": 0, "seed": 1}
    answer = miner.chat(ASK, max_tokens=200, **fields).json()
    found = json.loads(content(answer))
    assert list(found) == ["name", "age", "colour"]
    assert len(found["name"]) <= 20
    assert isinstance(found["age"], int)
    assert found["colour"] in PERSON["properties"]["colour"]["enum"]  # type: ignore[index]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_json_object_is_one_as_far_as_it_goes_whatever_the_model_would_say(miner: Miner) -> None:
    for seed in range(4):
        fields = {"response_format": {"type": "json_object"}, "temperature": 2, "top_k": 0, "seed": seed}
        answer = miner.chat(ASK, max_tokens=60, **fields).json()
        text = content(answer)
        assert text.startswith("{")
        if answer["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            with pytest.raises(json.JSONDecodeError, match=r"(?i)unterminated|expecting"):
                json.loads(text)


def test_a_grammar_decides_streamed_answers_too_and_its_end_is_the_answers_end(miner: Miner) -> None:
    grammar = 'root ::= ("yes" | "no") ", " [0-9]{3} "!"'
    for ignore_eos in (False, True):
        chunks = events(miner.chat(ASK, grammar=grammar, stream=True, ignore_eos=ignore_eos, max_tokens=50))
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert re.fullmatch(r"(yes|no), \d{3}!", text)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_characters_of_many_bytes_can_be_demanded_and_forbidden(miner: Miner) -> None:
    answer = miner.chat(ASK, grammar='root ::= "é" [あ-ん] "😀" "\\n"').json()
    assert re.fullmatch("é[あ-ん]😀\n", content(answer))


def test_a_grammar_takes_part_in_a_bare_completion_with_its_penalties_and_bias(miner: Miner) -> None:
    body = {"model": MODEL_NAME, "prompt": "x", "grammar": "root ::= [ab]{8}", "max_tokens": 20, "repeat_penalty": 1.5}
    for mirostat in (0, 1, 2):
        answer = miner.post("/v1/completions", {**body, "mirostat": mirostat, "seed": 3}).json()
        assert re.fullmatch("[ab]{8}", answer["choices"][0]["text"])


@pytest.mark.parametrize("fields", [{"grammar": ""}, {"response_format": {"type": "text"}}, {"response_format": None}])
def test_no_demand_is_none(miner: Miner, fields: dict[str, object]) -> None:
    assert "Paris" in content(miner.chat("What is the capital of France?", **fields).json())


HOSTILE = [
    ("grammar", 'root ::= "a', "unexpected end of input"),
    ("grammar", "root ::= nothing", "nothing"),
    ("grammar", 'other ::= "a"', "root"),
    ("grammar", 'root ::= root "a" | "b"', "left recursion"),
    ("grammar", 'root ::= a root "x" | "y"\na ::= b\nb ::= "" | "z"', "time or memory"),  # llama.cpp does not see it
    ("grammar", "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "time or memory"),
    ("grammar", 'root ::= ("a"?){9999}', "repetition"),
    ("grammar", "root ::= \x00", "null"),
    ("schema", {"$ref": "https://example.com/schema.json"}, "only references within"),
    ("schema", {"$ref": "file:///etc/passwd"}, "only references within"),
    ("schema", {"$ref": "#/nowhere"}, "nowhere"),
    ("schema", {"type": "wizard"}, "wizard"),
    ("schema", {"type": "string", "pattern": "no anchors"}, "Pattern"),
    ("schema", {"type": "array", "items": {}, "minItems": 10**9}, "memory"),
    ("schema", {"$ref": "#/a", "a": {"$ref": "#/a"}}, "recursion"),
]


@pytest.mark.parametrize(("kind", "value", "reason"), HOSTILE)
def test_what_cannot_be_parsed_is_refused_with_the_reason(miner: Miner, kind: str, value: object, reason: str) -> None:
    fields = {"grammar": value} if kind == "grammar" else {"response_format": schema_format(value)}
    for stream in (False, True):
        response = miner.chat(ASK, stream=stream, **fields)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == next(iter(fields))
        assert reason in error["message"]


DEAD_END = r'root ::= "a" [^\x00-\U0010FFFF]'
DOUBLING = 'root ::= a\na ::= "x" a "y" | "x" a "z"'  # its stacks double with each x


@pytest.mark.parametrize(
    ("grammar", "reason"), [(DEAD_END, "allows no further token"), (DOUBLING, "too much time or memory")]
)
def test_a_grammar_that_leads_nowhere_ends_its_own_request_and_no_other(
    miner: Miner, grammar: str, reason: str
) -> None:
    (engine,) = miner.engines()
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(miner.chat, "What is the capital of France?")
        hostile = miner.chat(ASK, grammar=grammar, max_tokens=60)
        assert "Paris" in content(other.result().json())
    assert hostile.status_code == 400
    assert reason in hostile.json()["error"]["message"]
    assert miner.engines() == [engine]
    assert "Paris" in content(miner.chat("What is the capital of France?").json())


def test_many_grammars_at_once_keep_to_their_own(miner: Miner) -> None:
    def answer(number: int) -> str:
        return content(miner.chat(ASK, grammar=f'root ::= "<{number}" [a-z]{{5}} ">"', temperature=1).json())

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(answer, range(16)))
    assert all(re.fullmatch(f"<{number}[a-z]{{5}}>", text) for number, text in enumerate(texts))


def test_the_processes_of_grammars_go_with_their_requests(miner: Miner) -> None:
    grammar = "root ::= [a-z]{1000}"
    wait_until(lambda: len(grammar_processes(miner)) < 2, 10, "those of earlier tests are gone")
    with miner.chat(ASK, grammar=grammar, stream=True, max_tokens=1000) as running:
        lines = running.iter_lines()  # requests closes the connection when nobody holds these
        assert next(lines)
        processes = grammar_processes(miner)
        assert len(processes) == 2  # the nursery and this one
        assert not any(name.startswith("R3MES_") for process in processes for name in process.environ())  # no secrets
    wait_until(lambda: len(grammar_processes(miner)) == 1, 10, "the process of the grammar is gone")


def grammar_processes(miner: Miner) -> list[psutil.Process]:
    (engine,) = miner.engines()
    found = []
    for child in engine.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if "services.miner.grammar" in child.cmdline():
                found.append(child)
    return found


def test_a_nursery_that_died_is_started_again(miner: Miner) -> None:
    grammar = 'root ::= "fine"'
    assert content(miner.chat(ASK, grammar=grammar).json()) == "fine"
    (engine,) = miner.engines()
    wait_until(lambda: len(grammar_processes(miner)) == 1, 10, "the request's own process is gone")
    (nursery,) = grammar_processes(miner)
    nursery.kill()
    wait_until(lambda: nursery.status() == psutil.STATUS_ZOMBIE, 10, "the nursery is dead")
    assert content(miner.chat(ASK, grammar=grammar).json()) == "fine"
    assert miner.engines() == [engine]


def test_the_openai_client_gets_structured_answers(miner: Miner) -> None:
    client = openai.OpenAI(base_url=f"{miner.url}/v1", api_key="none", timeout=120, max_retries=0)
    answer = client.chat.completions.create(
        model=MODEL_NAME,
        messages=chat_body(ASK)["messages"],
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"name", "age", "colour"}
