"""`r3mes chat`: a person at a terminal, and a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launching import launch
from tests.support.scripted_stack import Hold, ScriptedStack, refuse, says, says_and_holds
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until


@pytest.fixture
def terminal(stack: ScriptedStack) -> Iterator[Terminal]:
    with Terminal("chat", R3MES_URL=stack.url) as running:
        running.wait_for(">>>")
        yield running


def wait_for_prompt(terminal: Terminal) -> None:
    """Ctrl-D that is typed before it is none."""
    wait_until(lambda: terminal.lines()[-1] == ">>>", what="the prompt")


def test_a_conversation_is_carried_and_ends_with_ctrl_d(stack: ScriptedStack, terminal: Terminal) -> None:
    stack.scripts = [says("It scatters."), says("More of it.")]
    terminal.type("Why is the sky blue?\r")
    terminal.wait_for("2 tokens; the first after")
    terminal.type("And at night?\r")
    terminal.wait_for("More of it.")
    wait_for_prompt(terminal)
    terminal.type("\x04")
    assert terminal.end() == 0
    assert [message["content"] for message in stack.asked[1]["messages"]] == [
        "Why is the sky blue?",
        "It scatters.",
        "And at night?",
    ]
    assert [line.partition("; the first after")[0] for line in terminal.lines()] == [
        f"Tiny at {stack.url}",
        "Ctrl-D or /exit leaves; /help lists what you can type",
        ">>> Why is the sky blue?",
        "It scatters.",
        "2 tokens",
        ">>> And at night?",
        "More of it.",
        "2 tokens",
        ">>>",
    ]


def test_lines_are_edited_recalled_and_pasted(stack: ScriptedStack, terminal: Terminal) -> None:
    terminal.type("One\x7f\x7f\x7fTwo\r")
    terminal.wait_for("Hello there.")
    terminal.type("\x1b[A!\r")
    terminal.wait_for(">>> Two!")
    wait_until(lambda: len(stack.asked) == 2, what="the second question")
    terminal.type("/he\t\r")
    terminal.wait_for("bring back what you typed")
    terminal.type("\x1b[200~a\nb\x1b[201~\r")
    wait_until(lambda: len(stack.asked) == 3, what="the pasted question")
    terminal.type('"""c\rd"""\r')
    wait_until(lambda: len(stack.asked) == 4, what="the quoted question")
    assert [asked["messages"][-1]["content"] for asked in stack.asked] == ["Two", "Two!", "a\nb", "c\nd"]
    terminal.type("/exit\r")
    assert terminal.end() == 0


def test_an_interrupt_stops_the_answer_and_keeps_the_conversation(stack: ScriptedStack, terminal: Terminal) -> None:
    hold = Hold()
    stack.scripts = [says_and_holds(hold, ("One, ", "two, "), ()), says("four.")]
    terminal.type("Count.\r")
    terminal.wait_for("One, two,")
    terminal.interrupt()
    terminal.wait_for("stopped")
    wait_until(hold.left.is_set, what="the connection to be closed")
    terminal.wait_for("tokens/s\n>>>")
    terminal.type("Go on.\r")
    terminal.wait_for("four.")
    assert stack.asked[1]["messages"][1] == {"role": "assistant", "content": "One, two, "}


def test_an_interrupt_at_the_prompt_says_how_to_leave(terminal: Terminal) -> None:
    terminal.type("half a question")
    terminal.wait_for(">>> half a question")
    terminal.interrupt()
    terminal.wait_for("half a question\n>>>")
    terminal.interrupt()
    terminal.wait_for(">>>\nCtrl-D or /exit leaves")
    assert terminal.command.poll() is None


def test_errors_are_told_in_a_line_and_what_was_said_stays(stack: ScriptedStack, terminal: Terminal) -> None:
    stack.scripts = [
        says("Good."),
        refuse(503, "the model is not loaded yet", Retry_After="3"),
        refuse(400, "9000 tokens, the context has 8192", "context_length_exceeded"),
        says("Better."),
        says("Anew."),
    ]
    terminal.type("a\r")
    terminal.wait_for("Good.")
    terminal.type("b\r")
    terminal.wait_for("error: the model is not loaded yet (try again in 3 s)")
    terminal.type("c\r")
    terminal.wait_for("(/reset begins a new conversation)")
    terminal.type("d\r")
    terminal.wait_for("Better.")
    assert [message["content"] for message in stack.asked[3]["messages"]] == ["a", "Good.", "d"]
    terminal.type("/reset\r/system Be brief.\r")
    terminal.wait_for("the system message holds")
    terminal.type("e\r")
    terminal.wait_for("Anew.")
    assert [message["content"] for message in stack.asked[4]["messages"]] == ["Be brief.", "e"]


def test_a_miner_that_loads_is_told_at_the_start_and_chat_goes_on(stack: ScriptedStack) -> None:
    stack.models_script = refuse(503, "Tiny is being loaded", Retry_After="5")
    with Terminal("chat", R3MES_URL=stack.url) as terminal:
        terminal.wait_for("Tiny is being loaded (try again in 5 s)")
        terminal.wait_for(">>>")
        stack.models_script = None
        terminal.type("Hello?\r")
        terminal.wait_for("Hello there.")


def test_nobody_there_is_an_error_at_once() -> None:
    with Terminal("chat", R3MES_URL="http://127.0.0.1:9") as terminal:
        assert terminal.end() == 6
        assert "nothing listens there" in terminal.text


def test_a_dumb_terminal_chats_without_escapes(stack: ScriptedStack) -> None:
    with Terminal("chat", R3MES_URL=stack.url, TERM="dumb", NO_COLOR="1") as terminal:
        terminal.wait_for(">>>")
        terminal.type("Hello?\r")
        terminal.wait_for("tokens; the first")
        wait_for_prompt(terminal)
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.written


def test_from_a_pipe_each_line_is_a_question(stack: ScriptedStack) -> None:
    stack.scripts = [says("One."), says("Two.")]
    done = launch("chat", given='first\n\n"""second\nline"""\n/exit\nnever\n', R3MES_URL=stack.url)
    assert (done.returncode, done.stdout) == (0, "One.\nTwo.\n")
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == ["2 tokens", "2 tokens"]
    assert [message["content"] for message in stack.asked[1]["messages"]] == ["first", "One.", "second\nline"]


def test_from_a_pipe_json_is_a_line_an_answer(stack: ScriptedStack) -> None:
    done = launch("chat", "--json", given="first\nsecond", R3MES_URL=stack.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == ["Hello there."] * 2


def test_from_a_pipe_the_first_error_ends_it(stack: ScriptedStack, tmp_path: Path) -> None:
    stack.scripts = [says("One."), refuse(429, "64 requests wait")]
    saved = tmp_path / "said.json"
    done = launch("chat", "-q", given=f"first\n/save {saved}\nsecond\nthird\n", R3MES_URL=stack.url)
    assert (done.returncode, done.stdout) == (6, "One.\n")
    assert "64 requests wait" in done.stderr
    assert len(stack.asked) == 2
    assert json.loads(saved.read_text())["messages"][1]["content"] == "One."
