"""`r3mes ask`: one question, the answer on stdout as it comes, its speed on stderr."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launcher.answer import Answer, Question
from launcher.answer_options import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    MaxTokens,
    Model,
    System,
    Temperature,
    Url,
)
from launcher.endpoints import ClientSettings, base_url
from launcher.help_text import examples
from launcher.options import AsJson, Quiet
from launcher.telling import Teller
from shared.errors import UsageError
from shared.settings import load_settings

_FROM_STDIN = "-"
_EXAMPLES = examples(
    'r3mes ask "Why is the sky blue?"',
    "r3mes ask < question.txt",
    'r3mes ask --url http://gpu-host:8000 --json "Why?"',
)


def ask(  # noqa: PLR0913  the command's options
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="The question; - or a pipe: from stdin.")
    ] = None,
    *,
    model: Model = None,
    system: System = "",
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    url: Url = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask the running stack, or any OpenAI endpoint, one question.

    The answer is streamed to stdout, its speed goes to stderr. Of R3MES_API_KEYS the first key is sent.
    """
    settings = load_settings(ClientSettings).at(url)
    text = read_question(question)
    asked = Question(as_text(text), model, max_tokens, temperature, as_text(system))
    Teller(as_json=as_json, quiet=quiet).tell(Answer(base_url(settings, "miner"), asked, api_key=settings.api_key))


def read_question(argument: str | None) -> str:
    """Return the question from the command line, or from stdin; raises UsageError where there is none."""
    text = argument
    if argument == _FROM_STDIN or (argument is None and not sys.stdin.isatty()):
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise UsageError(f"the question on stdin is not text: {error}") from error
    if text is None or not text.strip():
        raise UsageError("there is no question", next_step='r3mes ask "Why is the sky blue?", or r3mes chat')
    return text


def as_text(argument: str) -> str:
    """Return an argument whose bytes are no text in this locale as text all the same."""
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(ask)
