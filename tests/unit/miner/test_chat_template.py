"""A template is code from a file: it renders, refuses in words, and can do nothing else."""

import pytest

from services.miner.model.chat_template import ChatTemplate
from shared.errors import EngineError, UsageError

MESSAGES = [{"role": "user", "content": "Hello"}]


def template(source: str | None) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>")


def test_a_template_sees_messages_special_tokens_and_the_usual_helpers() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{{ m.role | tojson }}{{ m['content'] | trim }}{% endfor %}"
        "{% if add_generation_prompt %}:{% endif %}{{ eos_token }}{% if tools is defined %}no{% endif %}"
    )
    assert template(source).render(MESSAGES) == '<s>"user"Hello:</s>'


def test_a_file_without_a_template_gets_chatml() -> None:
    assert template(None).render(MESSAGES) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_the_mark_of_what_an_assistant_said_lets_its_text_through() -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ loop.index }}{% set last = m.content %}{{ last }}{% endgeneration %}"
        "{{ last is defined }}{% endfor %}{% if tools %}{% generation %}{{ tools }}{% endgeneration %}{% endif %}"
    )
    assert template(source).render(MESSAGES) == "1HelloFalse"
    assert template(source).takes_tools


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", '{"b": "é", "a": 1}'),
        ("(ensure_ascii=True)", '{"b": "\\u00e9", "a": 1}'),
        ("(true)", '{"b": "\\u00e9", "a": 1}'),
        ("(indent=1)", '{\n "b": "é",\n "a": 1\n}'),
        ("(separators=(',', ':'))", '{"b":"é","a":1}'),
        ("(sort_keys=True)", '{"a": 1, "b": "é"}'),
        ("(False, None, (',', ':'), True)", '{"a":1,"b":"é"}'),
    ],
)
def test_json_is_written_as_transformers_writes_it(arguments: str, text: str) -> None:
    assert template("{{ {'b': 'é', 'a': 1} | tojson" + arguments + " }}").render(MESSAGES) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__subclasses__() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ messages.append(1) }}",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_what_a_template_may_not_do_is_an_error_of_this_request(source: str) -> None:
    with pytest.raises(UsageError, match="chat template refuses"):
        template(source).render(MESSAGES)


def test_a_template_that_does_not_compile_is_an_error_of_the_model() -> None:
    with pytest.raises(EngineError, match="does not compile"):
        template("{% for %}")
    with pytest.raises(EngineError, match="does not compile"):
        template("{% generation %}{{ messages }}")
