"""What can be typed instead of a question: `/reset` and its like. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# `/etc/passwd` and `/ or not` are questions.
_FORM = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)


class Word(StrEnum):
    """What a person may want of the chat itself."""

    HELP = "help"
    RESET = "reset"
    SYSTEM = "system"
    SAVE = "save"
    EXIT = "exit"


_ALSO = {"?": Word.HELP, "bye": Word.EXIT, "quit": Word.EXIT, "clear": Word.RESET}
WORDS = tuple(f"/{word}" for word in Word)
HELP = """\
/reset         forget what was said; the system message stays
/system TEXT   set the system message for what comes; without TEXT: show it
/save FILE     write the conversation as JSON
/exit          leave, as Ctrl-D does
\"\"\"            begins a question of several lines, and ends it
\\              at the end of a line: the question goes on in the next one
Ctrl-C         stops an answer; what came of it stays in the conversation
Up, Down       bring back what you typed"""


@dataclass(frozen=True, slots=True)
class Command:
    """A word with what stands after it; `word` is None for one that nobody knows, whose text is `rest`."""

    word: Word | None
    rest: str = ""


def parse(text: str) -> Command | None:
    """Return the command in `text`, None where it is a question."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    name = match[1]
    try:
        word = _ALSO.get(name) or Word(name)
    except ValueError:
        return Command(None, f"/{name}")
    return Command(word, (match[2] or "").strip())
