"""The tools that a request declares, which of them must be called, and the schema that an answer then has to match."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from services.miner.api.errors import invalid
from services.miner.api.lenient import Lenient, Text
from services.miner.grammar.wire import MAX_CONSTRAINT_BYTES, Constraint

MAX_TOOLS = 128  # OpenAI's
NAME = r"^[A-Za-z0-9_.-]{1,64}$"


class FunctionDeclaration(Lenient):
    """A function's name, what it is for, and the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class Tool(Lenient):
    """A tool; functions alone."""

    type: Literal["function"]
    function: FunctionDeclaration

    def plain(self) -> dict[str, Any]:
        """Return it as templates want it."""
        function: dict[str, Any] = {"name": self.function.name, "description": self.function.description or ""}
        function["parameters"] = self.function.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


class ChosenFunction(Lenient):
    """The name of one function."""

    name: Text


class ChosenTool(Lenient):
    """One tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class ToolFields(Lenient):
    """What a request says about tools."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools or []

    def forced(self) -> Constraint | None:
        """Return what an answer must match that has to be a call; raises ApiError for a tool that is not declared."""
        if not isinstance(self.tool_choice, ChosenTool) and self.tool_choice != "required":
            return None
        choices = self.offered
        if isinstance(self.tool_choice, ChosenTool):
            wanted = self.tool_choice.function.name
            choices = [tool for tool in choices if tool.function.name == wanted]
        if not choices:
            raise invalid("tool_choice: no such tool is declared", "tool_choice")
        calls = [_call_schema(tool) for tool in choices]
        return _constraint(calls[0] if len(calls) == 1 else {"anyOf": calls})


def _call_schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.function.name},
            "arguments": tool.function.parameters or {"type": "object"},
        },
        "required": ["name", "arguments"],
    }


def _constraint(schema: dict[str, Any]) -> Constraint:
    try:
        text = json.dumps(schema, separators=(",", ":"))
    except RecursionError as error:
        raise invalid("tools: the parameters are nested too deeply", "tools") from error
    if len(text.encode()) > MAX_CONSTRAINT_BYTES - 1:
        raise invalid(f"tools: larger than {MAX_CONSTRAINT_BYTES // 1024} KiB", "tools")
    return Constraint("schema", text, "tools")
