"""Lines that a person or a pipe gives, and how several of them become one question.

A line that begins with three double quotes begins a question that ends with three double quotes; a line that ends with
a backslash goes on in the next one. What is open when the input ends is a question all the same.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Protocol

PROMPT, NEXT_PROMPT = ">>> ", "... "
_QUOTES = '"""'


class Assembly:
    """Takes line after line and gives a question once it is whole. Pure."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._is_quoted = False

    @property
    def is_open(self) -> bool:
        """Whether a question has begun."""
        return self._is_quoted or bool(self._parts)

    def add(self, line: str) -> str | None:
        """Take a line; return the question that it ends, None while one is open."""
        if not self.is_open and line.lstrip().startswith(_QUOTES):
            self._is_quoted = True
            line = line.lstrip().removeprefix(_QUOTES)
            if not line.strip():
                return None
        if self._is_quoted:
            if not line.rstrip().endswith(_QUOTES):
                self._parts.append(line)
                return None
            line = line.rstrip().removesuffix(_QUOTES)
            if line:
                self._parts.append(line)
            return self.finish()
        if line.endswith("\\"):
            self._parts.append(line[:-1])
            return None
        self._parts.append(line)
        return self.finish()

    def finish(self) -> str:
        """Return what is there, and begin anew."""
        text = "\n".join(self._parts)
        self._parts, self._is_quoted = [], False
        return text


class Reader(Protocol):
    """Where lines come from; raises EOFError at the end, KeyboardInterrupt on Ctrl-C."""

    def read(self, prompt: str) -> str:
        """Return the next line without its end."""


class TerminalReader:
    """A person's lines, with editing and with a history that lasts as long as the process."""

    def __init__(self, words: tuple[str, ...]) -> None:
        readline = _readline()
        if readline is not None:
            if os.environ.get("TERM") not in {None, "dumb", "unknown"}:  # readline itself would not look
                readline.parse_and_bind("set enable-bracketed-paste on")  # lines that are pasted are one question
            readline.parse_and_bind("tab: complete")
            readline.set_completer_delims(" ")
            readline.set_completer(lambda text, state: _completion(words, text, state))

    def read(self, prompt: str) -> str:
        """Ask for a line."""
        return input(prompt)


class PlainReader:
    """Lines of a pipe or a file, and of a person whose stdout leads elsewhere (`prompts`)."""

    def __init__(self, *, prompts: bool) -> None:
        self._prompts = prompts

    def read(self, prompt: str) -> str:
        """Return the next line."""
        if self._prompts:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


def is_line_empty() -> bool:
    """Tell whether nothing had been typed when Ctrl-C came."""
    readline = _readline()
    return readline is None or not readline.get_line_buffer()


def _readline() -> ModuleType | None:
    """Return what gives `input` its editing; a Python that was built without it has none."""
    try:
        return importlib.import_module("readline")
    except ImportError:
        return None


def _completion(words: tuple[str, ...], text: str, state: int) -> str | None:
    fitting = [word for word in words if word.startswith(text)] if text.startswith("/") else []
    return fitting[state] if state < len(fitting) else None
