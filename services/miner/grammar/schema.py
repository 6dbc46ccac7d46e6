"""From a JSON schema to GBNF, by llama-cpp-python's converter, with what it gets wrong put right.

Its strings may hold raw line breaks, which no JSON parser takes, its literals lose their backslashes, and a schema that
allows anything allows objects only. Nothing is ever fetched: the converter is told so, and a reference to anywhere else
is refused before it sees it. Where it ends with an error or not at all is its caller's concern: it runs in the process
of one request.
"""

from __future__ import annotations

import json
from typing import Any

from llama_cpp import llama_grammar as untyped

llama_grammar: Any = untyped

ANY_OBJECT = '{"type":"object"}'
ANY_VALUE = {"type": ["object", "array", "string", "number", "boolean", "null"]}
CHARACTER = r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
PLAIN_CHARACTER = r'[^"\\\x7F\x00-\x1F]'  # what a dot in a `pattern` stands for

# All that the converter raises for a schema that it does not understand; it checks little.
REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class _Converter(llama_grammar.SchemaConverter):  # type: ignore[misc]  # the package is not typed
    def __init__(self) -> None:
        options = {"prop_order": {}, "allow_fetch": False, "dotall": False, "raw_pattern": False}
        llama_grammar.SchemaConverter.__init__(self, **options)

    def visit(self, schema: Any, name: str) -> str:  # noqa: ANN401  (whatever JSON holds)
        if schema is True or schema == {}:
            schema = ANY_VALUE
        elif isinstance(schema, dict) and (schema.get("items") is True or schema.get("items") == {}):
            schema = {**schema, "items": ANY_VALUE}
        return str(super().visit(schema, name))

    def _format_literal(self, literal: str) -> str:
        text = json.dumps(json.loads(literal), ensure_ascii=False)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_gbnf(text: str) -> str:
    """Return the grammar of a schema; raises ValueError with the reason when it cannot be converted."""
    llama_grammar.PRIMITIVE_RULES["char"].content = CHARACTER
    llama_grammar.DOT = PLAIN_CHARACTER
    try:
        schema = json.loads(text)
        _refuse_foreign_references(schema)
        converter: Any = _Converter()
        converter.visit(converter.resolve_refs(schema, ""), "")
        grammar = str(converter.format_grammar())
        grammar.encode()  # half of a surrogate pair is no text
    except REFUSALS as error:
        raise ValueError(f"the JSON schema cannot be converted: {_reason(error)}") from error
    return grammar


def _refuse_foreign_references(schema: object) -> None:
    rest: list[Any] = [schema]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#/"):
                raise ValueError(f"$ref {reference!r}: only references within the schema (#/…) are followed")
            rest.extend(node.values())
        elif isinstance(node, list):
            rest.extend(node)


def _reason(error: Exception) -> str:
    match error:
        case KeyError():
            return f"no {error.args[0]!r}"
        case AttributeError() | TypeError() | ArithmeticError():
            return "a value is not of the type that its keyword wants"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return str(error) or type(error).__name__
