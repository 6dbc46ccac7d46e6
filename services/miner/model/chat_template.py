"""The model's own chat template, which is code from a file: it runs in Jinja's sandbox and can change nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import EngineError, UsageError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatTemplateError(EngineError):
    """The model's chat template does not compile, whichever engine loads the model."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks an assistant's words for training, and shows its text."""

    tags: set[str] = {"generation"}  # noqa: RUF012  (as the parent declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        # What is set within stays within, as in transformers.
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class ChatTemplate:
    """A compiled template; ChatML where the file has none. Raises ChatTemplateError when it does not compile."""

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = time.strftime
        self._special = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source or CHATML)
            # Whoever reads `tools` can tell the model of them.
            self.takes_tools = "tools" in meta.find_undeclared_variables(environment.parse(source or CHATML))
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the model's chat template does not compile: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Return the prompt for `messages` (role, content, calls), up to where the answer begins.

        Raises UsageError with the template's own words when it refuses these messages.
        """
        try:
            offered = {"tools": tools} if tools else {}
            return self._template.render(messages=messages, add_generation_prompt=True, **offered, **self._special)
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the model's chat template refuses these messages: {error}") from error


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON with the arguments that templates know from transformers."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
