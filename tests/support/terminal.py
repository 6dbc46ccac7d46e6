"""A command at a pseudo-terminal, and the screen that a person sees of it, drawn by pyte.

`wait_for` waits until a text is on the screen; the screen is what the terminal shows, not what was written.
"""

from __future__ import annotations

import codecs
import os
import pty
import select
import termios
from types import TracebackType
from typing import Self

import pyte

from tests.support.launcher_nursery import start
from tests.support.waiting import wait_until

SECONDS = 60.0


class Terminal:
    """`r3mes ARGUMENTS` at a terminal of `columns` and `lines`; killed on exit."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 40, **environment: str) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.written = ""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        environ = {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environment}
        self.command = start(arguments, environ, (slave, slave, slave))
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.command.kill()
        os.close(self._master)

    def lines(self) -> list[str]:
        """The lines on the screen, without what is empty at the end of each and of all."""
        self._read()
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines())

    def wait_for(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until `text` stands on the screen."""

        def there() -> bool:
            assert text in self.text, self.text
            return True

        wait_until(there, seconds, f"{text!r} on the screen")

    def type(self, text: str) -> None:
        """Type as a person does; `\\r` is Enter."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.type("\x03")

    def end(self) -> int:
        """Wait for the end and return the exit code."""

        def ended() -> bool:
            self._read()  # a full terminal would keep it from ending
            return self.command.poll() is not None

        wait_until(ended, SECONDS, "the command to end")
        self._read()
        return self.command.wait(0)

    def resize(self, columns: int, lines: int) -> None:
        self._read()
        self.screen.resize(lines, columns)
        termios.tcsetwinsize(self._master, (lines, columns))

    def _read(self) -> None:
        while select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            text = self._decoder.decode(data)
            self.written += text
            self._stream.feed(text)
