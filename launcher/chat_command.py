"""`r3mes chat`: the command line; the conversation is in `launcher.chat`."""

from __future__ import annotations

import io
import sys

import typer

from launcher.answer import Question
from launcher.answer_options import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    MaxTokens,
    Model,
    System,
    Temperature,
    Url,
)
from launcher.ask_command import as_text
from launcher.chat.conversation import Conversation
from launcher.chat.session import ChatSession
from launcher.endpoints import ClientSettings
from launcher.help_text import examples
from launcher.options import AsJson, Quiet
from launcher.telling import Teller
from shared.settings import load_settings

_EXAMPLES = examples(
    "r3mes chat",
    'r3mes chat --system "Answer in Turkish."',
    "r3mes chat --url http://gpu-host:8000/v1 --model Llama-3-8B",
    "r3mes chat --json < questions.txt",
)


def chat(
    *,
    model: Model = None,
    system: System = "",
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    url: Url = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Talk with the running stack, or with any OpenAI endpoint: each question carries what was said before.

    /help lists what can be typed beside questions; Ctrl-C stops an answer, Ctrl-D leaves. From a pipe each line is a question, and the first error ends it.
    """  # noqa: E501  a paragraph of help is one line
    settings = load_settings(ClientSettings).at(url)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    conversation = Conversation(Question("", model, max_tokens, temperature, as_text(system)))
    session = ChatSession(settings, conversation, Teller(as_json=as_json, quiet=quiet), quiet=quiet)
    raise typer.Exit(session.run())


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(chat)
