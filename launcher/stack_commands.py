"""`r3mes demo | ask | status`: the command lines; what they do is in `launcher.demo`, `ask` and `status`."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.answer import Question
from launcher.ask import ask as ask_stack
from launcher.demo.options import DEFAULT_MAX_TOKENS, DEFAULT_PROMPT, DemoOptions
from launcher.demo.run import run_demo
from launcher.endpoints import ClientSettings
from launcher.status import report, show
from shared.settings import load_settings

MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.")]


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the answer.")] = False,
    tamper: Annotated[
        bool, typer.Option("--tamper", help="Let the origin flip one bit: the file is deleted; exit code 3.")
    ] = False,
    prompt: Annotated[str, typer.Option("--prompt", help="The question.")] = DEFAULT_PROMPT,
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
) -> None:
    """Show the whole chain on this machine: download, verify, load, answer; then serve until Ctrl-C.

    Redis, a loopback origin that behaves like Hugging Face, and the three services run as processes of this one.
    """
    raise typer.Exit(run_demo(DemoOptions(once, tamper, prompt, max_tokens)))


def ask(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    *,
    model: Annotated[str | None, typer.Option("--model", help="A model's name (default: the one served).")] = None,
    max_tokens: MaxTokens = 512,
) -> None:
    """Ask the running stack (R3MES_URL) one question; the answer is streamed to stdout."""
    ask_stack(Question(question, model, max_tokens), load_settings(ClientSettings))


def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False) -> None:
    """Show every pinned model: asks the running stack (R3MES_URL), without one reads the store."""
    show(report(load_settings(ClientSettings)), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the three commands."""
    for command in (demo, ask, status):
        app.command()(command)
