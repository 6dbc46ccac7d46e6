"""Calls are found in whatever pieces an answer comes, and what is no call is shown to the last character."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.api.errors import ApiError
from services.miner.api.tools.calls import CallParser, ToolCall
from services.miner.api.tools.declared import ToolFields

NAMES = ("get_weather", "add")
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
PARIS = ToolCall("get_weather", '{"city": "Paris"}')
ADD = '{"name": "add", "arguments": {"a": 1, "b": [2, {}]}}'
SUM = ToolCall("add", '{"a": 1, "b": [2, {}]}')


def parsed(pieces: list[str]) -> tuple[str, list[ToolCall]]:
    parser = CallParser(NAMES)
    text, calls = "", []
    for piece in pieces:
        shown, found = parser.push(piece)
        text, calls = text + shown, calls + found
    rest, found = parser.finish()
    return text + rest, calls + found


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", "", [PARIS]),
        (f"I look.\n<tool_call>\n{CALL}\n</tool_call>", "I look.", [PARIS]),
        (f"<tool_call>{CALL}</tool_call>\n<tool_call>{ADD}</tool_call>", "", [PARIS, SUM]),
        (f"[TOOL_CALLS] [{CALL}, {CALL}]", "", [PARIS, PARIS]),
        ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
        (CALL, "", [PARIS]),
        (f"  [{CALL}]\n", "", [PARIS]),
        ('{"name": "add", "arguments": "{\\"a\\": 1}"}', "", [ToolCall("add", '{"a": 1}')]),
        ('{"name": "add", "arguments": ""}', "", [ToolCall("add", "{}")]),
        ('{"name": "add"}', "", [ToolCall("add", "{}")]),
    ],
)
def test_a_call_is_found_in_each_form_that_models_write(answer: str, text: str, calls: list[ToolCall]) -> None:
    assert parsed([answer]) == (text, calls)
    assert parsed(list(answer)) == (text, calls)


@pytest.mark.parametrize(
    "answer",
    [
        "Paris is the capital of France.",
        "a < b, and <tool_cal is no tag",
        '{"name": "rm", "arguments": {}}',
        '{"name": "add", "arguments": 5}',
        '{"answer": 42}',
        '{"name": ["add"], "arguments": {}}',
        '{"name": "add", "arguments": {"a": NaN}}',
        '{"name": "add", "arguments": {"a": 1e999}}',
        '{"name": "add", "arguments": {"a": [-1e999]}}',
        '{"name": "add", "arguments": "{\\"a\\": 1e999}"}',
        '{"name": "add", "arguments": "{\\"a\\": NaN}"}',
        '{"name": "add", "arguments": "one and two"}',
        '{"name": "add", "arguments": "[1, 2]"}',
        '"add"',
        '{"name": "add", "arguments": {"a": ',
        "<tool_call>not json</tool_call> and on",
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        f"<tool_call>{CALL}",
        f'[{CALL}, {{"name": "rm"}}]',
        "[1, 2, 3]",
        "",
        "   ",
        "[TOOL_CALLS]",
        "[" * 100_000,
    ],
)
def test_what_is_no_call_of_a_declared_tool_is_shown_as_it_is(answer: str) -> None:
    if answer == f"<tool_call>{CALL}":  # cut short by its own end, and complete all the same
        assert parsed([answer]) == ("", [PARIS])
    else:
        assert parsed([answer]) == (answer, [])


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": "\\ud800", "é": "\\ud83d\\ude00"}',
        '{"\\udc00": 1}',
        '"{\\"a\\": \\"\\ud800\\"}"',
        '"{\\"a\\": \\"\\\\ud800\\"}"',
        '{"a": "é"}',
    ],
)
def test_arguments_are_json_that_utf8_can_carry_whatever_halves_of_characters_are_among_them(arguments: str) -> None:
    text, (call,) = parsed([f'{{"name": "add", "arguments": {arguments}}}'])
    assert text == ""
    said = json.loads(arguments)
    assert json.loads(call.arguments.encode()) == (json.loads(said) if isinstance(said, str) else said)


pieces = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", "<tool", "_call>", "[TOOL_CALLS]", "<|python", "_tag|>", CALL, "{", "}", "[",
         "x", "\n", " ", '{"name": "rm"}', "é"]
    ),
    max_size=12,
)  # fmt: skip


@given(pieces, st.data())
def test_however_an_answer_is_divided_it_says_the_same(parts: list[str], data: st.DataObject) -> None:
    answer = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))
    divided = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = parsed([answer])
    assert parsed(divided) == whole
    if not whole[1]:
        assert whole[0] == answer, "nothing is lost"


def test_plain_text_is_shown_at_once_but_for_what_may_be_a_tag() -> None:
    parser = CallParser(NAMES)
    assert parser.push("Hello <") == ("Hello ", [])
    assert parser.push("b>") == ("<b>", [])


def fields(**given: object) -> ToolFields:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in NAMES
    ]
    return ToolFields.model_validate({"tools": tools, **given})


def test_a_tool_that_must_be_called_becomes_a_schema() -> None:
    assert fields().forced() is None
    assert fields(tool_choice="auto").forced() is None
    one = fields(tool_choice={"type": "function", "function": {"name": "add"}}).forced()
    assert one is not None
    assert json.loads(one.text)["properties"]["name"] == {"const": "add"}
    some = fields(tool_choice="required").forced()
    assert some is not None
    assert [each["properties"]["name"]["const"] for each in json.loads(some.text)["anyOf"]] == list(NAMES)
    assert some.parameter == "tools"


@pytest.mark.parametrize(
    "given",
    [{"tools": [], "tool_choice": "required"}, {"tool_choice": {"type": "function", "function": {"name": "rm"}}}],
)
def test_a_tool_that_is_not_declared_cannot_be_chosen(given: dict[str, object]) -> None:
    with pytest.raises(ApiError, match="no such tool"):
        fields(**given).forced()


def test_with_none_the_model_is_told_of_no_tools() -> None:
    assert fields(tool_choice="none").offered == []
    assert len(fields().offered) == len(NAMES)
