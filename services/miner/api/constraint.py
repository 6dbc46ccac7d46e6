"""What an answer must match, as a request writes it: OpenAI's `response_format`, llama-server's `grammar`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from services.miner.api.errors import invalid
from services.miner.api.lenient import Lenient, Text
from services.miner.grammar.schema import ANY_OBJECT
from services.miner.grammar.wire import MAX_CONSTRAINT_BYTES, Constraint


class TextFormat(Lenient):
    """Anything."""

    type: Literal["text"]


class JsonObjectFormat(Lenient):
    """Any JSON object; with a `schema`, as llama-server takes it, one that matches it."""

    type: Literal["json_object"]
    definition: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class JsonSchema(Lenient):
    """A schema as OpenAI wraps it; its name and description are for models that read them."""

    definition: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class JsonSchemaFormat(Lenient):
    """A JSON value that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ConstraintFields(Lenient):
    """At most one of the two constrains."""

    grammar: Text | None = None
    response_format: ResponseFormat | None = None

    def constraint(self) -> Constraint | None:
        """Return what the answer must match; raises ApiError for two at once or one that is too large."""
        found = self._schema()
        if self.grammar:
            if found is not None:
                raise invalid("grammar and response_format both say what the answer must match", "grammar")
            found = Constraint("grammar", self.grammar)
        if found is not None and len(found.text.encode()) > MAX_CONSTRAINT_BYTES - 1:
            raise invalid(f"{found.parameter}: larger than {MAX_CONSTRAINT_BYTES // 1024} KiB", found.parameter)
        return found

    def _schema(self) -> Constraint | None:
        match self.response_format:
            case None | TextFormat():
                return None
            case (
                JsonObjectFormat(definition=definition)
                | JsonSchemaFormat(json_schema=JsonSchema(definition=definition))
            ):
                return Constraint("schema", ANY_OBJECT if definition is None else _text(definition))


def _text(definition: dict[str, Any]) -> str:
    try:
        return json.dumps(definition, separators=(",", ":"))
    except RecursionError as error:
        raise invalid("response_format: the schema is nested too deeply", "response_format") from error
