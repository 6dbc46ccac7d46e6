"""Which parts of an answer are calls of a tool, told while it is generated. Pure.

Models write calls in the form that they were trained on: between `<tool_call>` and `</tool_call>` (Hermes, Qwen),
after `[TOOL_CALLS]` (Mistral) or `<|python_tag|>` (Llama), or as bare JSON. Text that may be the beginning of one is
held back until that is known. What looks like a call and is none of a declared tool is shown as the text that it is:
nothing of an answer is ever lost.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

OPENINGS = {"<tool_call>": "</tool_call>", "[TOOL_CALLS]": "", "<|python_tag|>": ""}
BARE = ("{", "[")  # an answer that begins so may be a call to its end
MAX_CALLS = 128


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function's name, and its arguments: always a JSON object, in characters that UTF-8 can write."""

    name: str
    arguments: str


@dataclass(slots=True)
class CallParser:
    """Takes the text of one answer piece by piece. Order: `push` for each piece → `finish`."""

    names: Collection[str]
    _held: str = ""
    _closing: str | None = None  # inside of a call: what ends it, "" where the answer's end does
    _opening: str = ""  # with the line breaks before it
    _begun: bool = False  # something other than space was seen
    _after_call: bool = False

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Return what can be shown now, and the calls that are complete."""
        self._held += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        while self._advance(shown, calls):
            pass
        return "".join(shown), calls

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return what is left at the end of the answer."""
        held, self._held = self._held, ""
        if self._closing is None:
            return held, []
        self._closing = None
        calls = self._calls_of(held)
        return ("", calls) if calls else (self._opening + held, [])

    def _advance(self, shown: list[str], calls: list[ToolCall]) -> bool:
        """Take one step; False when more text is needed."""
        if self._closing is None:
            return self._outside(shown)
        if not self._closing:
            return False
        inside, found, rest = self._held.partition(self._closing)
        if not found:
            return False
        complete = self._calls_of(inside)
        calls += complete
        if not complete:
            shown.append(self._opening + inside + found)
        self._held, self._closing, self._after_call = rest, None, bool(complete)
        return True

    def _outside(self, shown: list[str]) -> bool:
        if self._after_call:
            self._held = self._held.lstrip("\n")
            self._after_call = not self._held
        if not self._held or (not self._begun and not self._held.strip()):
            return False
        if not self._begun and self._held.lstrip().startswith(BARE) and not _may_open(self._held.lstrip()):
            self._begun, self._opening, self._closing = True, "", ""
            return True
        at, opening = min(
            ((at, opening) for opening in OPENINGS if (at := self._held.find(opening)) >= 0), default=(-1, "")
        )
        if at >= 0:
            shown.append(self._held[:at].rstrip("\n") if self._begun or self._held[:at].strip() else "")
            self._opening = self._held[len(shown[-1]) : at] + opening
            self._held = self._held[at + len(opening) :]
            self._begun, self._closing = True, OPENINGS[opening]
            return True
        text = self._held[: len(self._held) - _possible_opening(self._held)].rstrip("\n")
        if self._begun or text.strip():
            self._begun = True
            shown.append(text)
            self._held = self._held[len(text) :]
        return False

    def _calls_of(self, text: str) -> list[ToolCall]:
        """Read one call or a list of them; none where anything else is among them."""
        try:
            found = _read(text)
            entries = found if isinstance(found, list) else [found]
            calls = [call for entry in entries if (call := self._call_of(entry)) is not None]
        except (ValueError, RecursionError):
            return []
        return calls if len(calls) == len(entries) <= MAX_CALLS else []

    def _call_of(self, entry: object) -> ToolCall | None:
        """Return the call, None where it is none; raises ValueError or RecursionError for what JSON cannot write."""
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str) or name not in self.names:
            return None
        arguments = entry.get("arguments", entry.get("parameters", {}))
        if isinstance(arguments, str):  # some models write the arguments as a string of JSON, as the API does
            arguments = _read(arguments) if arguments else {}
        return ToolCall(name, _written(arguments)) if isinstance(arguments, dict) else None


def _read(text: str) -> object:
    found: object = json.loads(text.strip(), parse_constant=_refuse)
    return found


def _written(arguments: dict[str, object]) -> str:
    written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)  # 1e999 was read as infinity
    try:
        written.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write as an escape alone
        return json.dumps(arguments)
    return written


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _may_open(text: str) -> bool:
    """Tell whether the text is the beginning of an opening, or begins with one."""
    return any(opening.startswith(text) or text.startswith(opening) for opening in OPENINGS)


def _possible_opening(text: str) -> int:
    """Return how many characters at the end may be the beginning of an opening."""
    return max(
        (
            count
            for opening in OPENINGS
            for count in range(1, min(len(opening) - 1, len(text)) + 1)
            if text.endswith(opening[:count])
        ),
        default=0,
    )
