"""`r3mes ask`: one question, the answer on stdout as it comes, its speed on stderr."""

from __future__ import annotations

import sys

from launcher.answer import Answer, AnswerTimes, Question, write_answer
from launcher.endpoints import ClientSettings, base_url


def ask(question: Question, settings: ClientSettings) -> None:
    """Stream the answer to stdout; raises what `Answer` raises."""
    answer = Answer(base_url(settings, "miner"), question, api_key=settings.api_key)
    write_answer(answer)
    sys.stderr.write(describe(answer.times) + "\n")


def describe(times: AnswerTimes) -> str:
    """Say in one line how fast an answer was."""
    rate = times.tokens_per_second
    speed = f", then {rate:.1f} tokens/s" if rate else ""
    return f"{times.tokens} tokens; the first after {times.first_token_seconds:.2f} s{speed}"
