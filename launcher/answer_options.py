"""The options that `ask` and `chat` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.completing import complete_model

DEFAULT_MAX_TOKENS = 512
DEFAULT_TEMPERATURE = 0.2
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="The model (default: the first that is served).",
        autocompletion=complete_model,
    ),
]
System = Annotated[str, typer.Option("--system", "-s", metavar="TEXT", help="The system message.", show_default=False)]
MaxTokens = Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="The longest answer, in tokens.")]
Temperature = Annotated[
    float, typer.Option("--temperature", "-t", metavar="X", min=0.0, max=2.0, help="0: always the likeliest word.")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Any OpenAI endpoint, with or without /v1 (default: R3MES_URL, else what runs here).",
    ),
]
