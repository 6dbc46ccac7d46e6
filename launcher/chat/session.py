"""A conversation that a person has, or a pipe.

At a terminal nothing but `/exit` and Ctrl-D ends it: an error is told in a line, and what was said before stays. From a
pipe an error ends it with its exit code, since what follows was asked in view of an answer that never came.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path

import requests

from launcher.answer import Answer, served_model
from launcher.chat.conversation import Conversation
from launcher.chat.lines import NEXT_PROMPT, PROMPT, Assembly, PlainReader, Reader, TerminalReader, is_line_empty
from launcher.chat.words import HELP, WORDS, Command, Word, parse
from launcher.completions import TooLongError
from launcher.endpoints import ClientSettings, base_url, no_answer, session
from launcher.telling import Teller
from shared.errors import ExitCode, NotReadyError, R3mesError

_HINT = "Ctrl-D or /exit leaves; /help lists what you can type"


class ChatSession:
    """Run once, by `run`."""

    def __init__(self, settings: ClientSettings, conversation: Conversation, teller: Teller, *, quiet: bool) -> None:
        self._url = base_url(settings, "miner")
        self._key = settings.api_key
        self._conversation = conversation
        self._teller = teller
        self._quiet = quiet
        self._is_person = sys.stdin.isatty()
        self._reader: Reader = PlainReader(prompts=self._is_person)
        if self._is_person and sys.stdout.isatty():
            self._reader = TerminalReader(WORDS)

    def run(self) -> ExitCode:
        """Answer until the end; raises R3mesError where the server does not answer at the start, and from a pipe."""
        self._greet()
        while (text := self._read()) is not None:
            command = parse(text)
            if command is None:
                self._answer(text)
            elif command.word is Word.EXIT:
                break
            else:
                self._obey(command)
        return ExitCode.OK

    def _greet(self) -> None:
        if not self._is_person:
            return
        name = self._conversation.limits.model
        try:
            with closing(session(self._key)) as client:
                name = name or served_model(client, self._url)
        except requests.RequestException as error:
            raise no_answer(self._url, error) from error
        except NotReadyError as error:  # it answers, and may be ready by the first question
            self._teller.say(_one_line(error))
        if not self._quiet:
            self._teller.say(f"{name or 'no model yet'} at {self._url}\n{_HINT}")

    def _read(self) -> str | None:
        """Return the next question or command, None at the end of the input."""
        assembly = Assembly()
        while True:
            try:
                text = assembly.add(self._reader.read(NEXT_PROMPT if assembly.is_open else PROMPT))
            except EOFError:
                text = assembly.finish() if assembly.is_open else None
                if self._is_person:
                    sys.stderr.write("\n")
                if text is None:
                    return None
            except KeyboardInterrupt:
                if not self._is_person:
                    raise
                sys.stderr.write("\n")
                if not assembly.is_open and is_line_empty():
                    self._teller.say(_HINT)
                assembly = Assembly()
                continue
            if text is not None and text.strip():
                return text

    def _answer(self, text: str) -> None:
        answer = Answer(self._url, self._conversation.question(text), api_key=self._key)
        try:
            self._teller.tell(answer)
        except KeyboardInterrupt:
            if not self._is_person:
                raise
            self._teller.say("stopped" if answer.text else "stopped; the question is forgotten")
            if answer.text:
                self._teller.tell_speed(answer)
        except R3mesError as error:
            if not self._is_person:
                raise
            self._teller.say_error(_one_line(error))
        if answer.text:
            self._conversation.add(text, answer.text)

    def _obey(self, command: Command) -> None:
        match command.word:
            case Word.RESET:
                self._conversation.reset()
                self._teller.say("a new conversation")
            case Word.SYSTEM if command.rest:
                self._conversation.system = command.rest
                self._teller.say("the system message holds from the next question on")
            case Word.SYSTEM:
                self._teller.say(self._conversation.system or "there is no system message")
            case Word.SAVE:
                self._teller.say(save(self._conversation, command.rest))
            case None:
                self._teller.say_error(f"{command.rest} is unknown; /help lists what you can type")
            case _:
                self._teller.say(HELP)


def save(conversation: Conversation, name: str) -> str:
    """Write a conversation to a new file that only its owner reads; return what to say."""
    if not name:
        return "wanted: /save FILE"
    try:
        path = Path(name).expanduser()
        text = json.dumps(conversation.to_json(), indent=2, ensure_ascii=False) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        return f"{name} is there already, and was not touched"
    except (OSError, RuntimeError, ValueError) as error:
        return f"cannot write {name}: {error}"
    return f"saved: {path}"


def _one_line(error: R3mesError) -> str:
    step = "/reset begins a new conversation" if isinstance(error, TooLongError) else error.next_step
    return f"{error.message} ({step})" if step else error.message
