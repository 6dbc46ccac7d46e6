"""`r3mes demo`: the command line; what it does is in `launcher.demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.demo.options import DEFAULT_MAX_TOKENS, DEFAULT_PROMPT, DemoOptions
from launcher.demo.run import run_demo
from launcher.help_text import examples

_EXAMPLES = examples("r3mes demo --once", "r3mes demo --tamper")


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the answer.")] = False,
    tamper: Annotated[
        bool, typer.Option("--tamper", help="Let the origin flip one bit: the file is deleted; exit code 3.")
    ] = False,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="The question.")] = DEFAULT_PROMPT,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="The longest answer, in tokens.")
    ] = DEFAULT_MAX_TOKENS,
) -> None:
    """Show the whole chain on this machine: download, verify, load, answer; then serve until Ctrl-C.

    Redis, a loopback origin that behaves like Hugging Face, and the three services run as processes of this one.
    """
    raise typer.Exit(run_demo(DemoOptions(once, tamper, prompt, max_tokens)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(demo)
