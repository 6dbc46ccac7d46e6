"""What the command line of the demo says."""

from __future__ import annotations

from dataclasses import dataclass

# Answered greedily, so that every run shows the same short and right answer of a very small model.
DEFAULT_PROMPT = "What is the capital of France, and what is it known for? Answer in one sentence."
DEFAULT_MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`once` ends after the answer, `tamper` lets the origin flip one bit."""

    once: bool = False
    tamper: bool = False
    prompt: str = DEFAULT_PROMPT
    max_tokens: int = DEFAULT_MAX_TOKENS
