"""What a person sees of an answer: a sign of life until it begins, the text on stdout, its speed on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.status import Status
from rich.text import Text

from launcher.answer import Answer, AnswerTimes, write_answer
from launcher.display import printable
from launcher.streams import write_data


class Teller:
    """Tells answers, as text or each as one line of JSON; `quiet`: no speed and no sign of life."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        # Elsewhere than on a terminal a line stays one line.
        self._console = Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False, markup=False)

    def tell(self, answer: Answer) -> None:
        """Read the answer and write it; raises what `Answer` raises. What came until then is in `answer.text`."""
        waiting = self._wait()
        try:
            if self._as_json:
                for _ in answer:
                    pass
            else:
                write_answer(answer, on_first=waiting.stop)
        finally:
            waiting.stop()
        if self._as_json:
            write_data(json.dumps(as_data(answer)) + "\n")
        else:
            self.tell_speed(answer)

    def tell_speed(self, answer: Answer) -> None:
        """Say how fast the answer was, and whether it is whole."""
        if self._quiet:
            return
        self.say(describe(answer.times))
        if answer.finish_reason == "length":
            self.say("cut off: as long as --max-tokens allows, or the context is full")

    def say(self, line: str) -> None:
        """Say something beside the answers."""
        self._console.print(Text(printable(line), style="dim"))

    def say_error(self, line: str) -> None:
        """Say what went wrong."""
        self._console.print(Text(f"error: {printable(line)}", style="red"))

    def _wait(self) -> Status:
        """Return a sign of life that turns, where somebody is there to see it."""
        status = Status(
            "waiting for the first word",
            console=self._console,
            spinner="line" if self._console.options.ascii_only else "dots",
            spinner_style="none",
        )
        if not self._quiet and sys.stderr.isatty() and not self._console.is_dumb_terminal:
            status.start()
        return status


def as_data(answer: Answer) -> dict[str, object]:
    """Return an answer for a script."""
    times = asdict(answer.times) | {"tokens_per_second": answer.times.tokens_per_second}
    return {"model": answer.model, "answer": answer.text, "finish_reason": answer.finish_reason, **times}


def describe(times: AnswerTimes) -> str:
    """Say in one line how fast an answer was."""
    rate = times.tokens_per_second
    speed = f", then {rate:.1f} tokens/s" if rate else ""
    tokens = "1 token" if times.tokens == 1 else f"{times.tokens} tokens"
    return f"{tokens}; the first after {times.first_token_seconds:.2f} s{speed}"
