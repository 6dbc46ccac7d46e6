"""What the command line of the demo says."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_PROMPT = "What is the capital of France, and what is it known for?"
DEFAULT_MAX_TOKENS = 128


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`once` ends after the answer, `tamper` lets the origin flip one bit."""

    once: bool = False
    tamper: bool = False
    prompt: str = DEFAULT_PROMPT
    max_tokens: int = DEFAULT_MAX_TOKENS
