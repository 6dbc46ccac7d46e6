"""Lines that become questions, words of the chat itself, and the conversation that questions carry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.answer import Question
from launcher.chat.conversation import Conversation
from launcher.chat.lines import Assembly
from launcher.chat.session import save
from launcher.chat.words import Command, Word, parse


def questions(*lines: str) -> list[str]:
    assembly = Assembly()
    found = [text for line in lines if (text := assembly.add(line)) is not None]
    return [*found, assembly.finish()] if assembly.is_open else found


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["one", "two"], ["one", "two"]),
        (['"""one', "", '  two"""', "three"], ["one\n\n  two", "three"]),
        (['"""', "one", '"""'], ["one"]),
        (['"""one"""'], ["one"]),
        (['""""""'], [""]),
        (["one \\", "two\\", "three", "four"], ["one \ntwo\nthree", "four"]),
        (['"""one \\', 'two"""'], ["one \\\ntwo"]),
        (['"""one', "two"], ["one\ntwo"]),
        (["one\\"], ["one"]),
        (['say """ loudly'], ['say """ loudly']),
    ],
)
def test_lines_become_questions(lines: list[str], expected: list[str]) -> None:
    assert questions(*lines) == expected


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/reset", Command(Word.RESET)),
        ("  /exit ", Command(Word.EXIT)),
        ("/bye", Command(Word.EXIT)),
        ("/system  Be brief.\nAnd kind.", Command(Word.SYSTEM, "Be brief.\nAnd kind.")),
        ("/?", Command(Word.HELP)),
        ("/foo bar", Command(None, "/foo")),
        ("/etc/passwd is what?", None),
        ("/ or not", None),
        ("what does /reset do", None),
    ],
)
def test_a_word_is_told_from_a_question(text: str, command: Command | None) -> None:
    assert parse(text) == command


def test_a_conversation_is_carried_forgotten_and_keeps_its_system_message() -> None:
    conversation = Conversation(Question("", "m", system="Be brief."))
    conversation.add("a", "b")
    assert [message["content"] for message in conversation.question("c").history] == ["a", "b"]
    conversation.system = "Be kind."
    conversation.reset()
    question = conversation.question("d")
    assert (question.history, question.system, question.text, question.model) == ((), "Be kind.", "d", "m")


def test_a_conversation_is_saved_once_for_its_owner_alone(tmp_path: Path) -> None:
    conversation = Conversation(Question("", system="s"))
    conversation.add("a", "ü")
    path = tmp_path / "said.json"
    assert save(conversation, str(path)) == f"saved: {path}"
    assert [message["content"] for message in json.loads(path.read_text())["messages"]] == ["s", "a", "ü"]
    assert path.stat().st_mode & 0o777 == 0o600
    conversation.reset()
    assert "was not touched" in save(conversation, str(path))
    assert "ü" in path.read_text()


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "~nobody-here/x", "a\0b"])
def test_what_cannot_be_saved_is_told(name: str) -> None:
    assert save(Conversation(Question("")), name).startswith(("wanted", "cannot write"))
