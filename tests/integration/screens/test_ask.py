"""`r3mes ask`, in a pipe and at a terminal: against a scripted endpoint, real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import certifi
import pytest

from tests.support.certificates import certificate
from tests.support.launching import Started, launch
from tests.support.scripted_stack import Hold, ScriptedStack, refuse, says, says_and_holds
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until


def test_an_answer_goes_to_stdout_and_its_speed_to_stderr(stack: ScriptedStack) -> None:
    done = launch("ask", "Why?", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "7", "--url", stack.url)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert done.stderr.startswith("4 tokens; the first after ")
    assert done.stderr.endswith(" tokens/s\n")
    (asked,) = stack.asked
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("Tiny", 0, 7)


@pytest.mark.parametrize("arguments", [["ask", "-"], ["ask"]])
def test_a_question_comes_from_a_pipe(stack: ScriptedStack, arguments: list[str]) -> None:
    done = launch(*arguments, "-q", given="Why\nso?\n", R3MES_URL=f"{stack.url}/v1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there.\n", "")
    assert stack.asked[0]["messages"][0]["content"] == "Why\nso?\n"


def test_no_question_is_a_usage_error(stack: ScriptedStack) -> None:
    done = launch("ask", given=" \n", R3MES_URL=stack.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no question" in done.stderr
    assert stack.asked == []


def test_json_has_the_answer_and_its_measure_and_the_key_is_sent(stack: ScriptedStack, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    done = launch("ask", "Why?", "--json", "--url", stack.url, R3MES_API_KEYS_FILE=str(keys))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["model"], document["answer"], document["tokens"]) == ("Tiny", "Hello there.", 4)
    assert document["finish_reason"] == "stop"
    assert document["tokens_per_second"] > 0
    assert stack.headers[0]["authorization"] == "Bearer one"


def test_a_server_that_knows_less_is_asked_for_less(stack: ScriptedStack) -> None:
    """No stream_options, no usage, no end mark, another name for the tokens."""
    stack.scripts = [
        refuse(400, "Unrecognized request argument: stream_options"),
        refuse(400, "Use 'max_completion_tokens' instead of 'max_tokens'."),
        says("one", " two", " three", counted=False, done=False),
    ]
    done = launch("ask", "Why?", "--url", stack.url, "--model", "theirs")
    assert (done.returncode, done.stdout) == (0, "one two three\n")
    assert done.stderr.startswith("3 tokens; ")
    assert "stream_options" not in stack.asked[2]
    assert stack.asked[2]["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (refuse(429, "64 requests wait", Retry_After="2"), 6, "try again in 2 s"),
        (refuse(401, "an API key is needed"), 78, "R3MES_API_KEYS"),
        (refuse(400, "9000 tokens", "context_length_exceeded"), 2, "shorter"),
        (refuse(500, "the engine ended"), 1, "the engine ended"),
        (refuse(404, "no \x1b[2Jmodel"), 2, r"no \x1b[2Jmodel"),
        (says("Half an", finish=None, done=False), 6, "cut off"),
    ],
)
def test_a_refusal_is_one_line_with_its_exit_code(stack: ScriptedStack, script: object, code: int, words: str) -> None:
    stack.scripts = [script]  # type: ignore[list-item]
    done = launch("ask", "Why?", "--url", stack.url)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


def test_an_answer_that_is_cut_short_says_so(stack: ScriptedStack) -> None:
    stack.scripts = [says("Once upon", finish="length")]
    assert "--max-tokens" in launch("ask", "Tell.", "--url", stack.url).stderr


def test_an_interrupt_ends_it_with_130_and_closes_the_connection(stack: ScriptedStack) -> None:
    hold = Hold()
    stack.scripts = [says_and_holds(hold, ("Once",), ())]
    with Started("ask", "Tell.", R3MES_URL=stack.url) as running:
        assert hold.reached.wait(60)
        running.interrupt()
        done = running.wait()
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout in {"", "Once\n"}
    wait_until(hold.left.is_set, what="the client to leave")


def test_a_url_that_is_none_is_a_usage_error() -> None:
    done = launch("ask", "Why?", "--url", "localhost:8000")
    assert done.returncode == 2
    assert "--url" in done.stderr
    assert "http://127.0.0.1:8000" in done.stderr


def test_a_certificate_of_one_s_own_is_accepted_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    context, trusted = certificate(tmp_path, "IP:127.0.0.1")
    with ScriptedStack(tls=context) as stack:
        refused = launch("ask", "Why?", "--url", stack.url)
        assert (refused.returncode, refused.stdout) == (78, "")
        assert "its certificate is not accepted (self-signed certificate" in refused.stderr
        assert "next: set SSL_CERT_FILE" in refused.stderr
        assert stack.asked == []
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            done = launch("ask", "Why?", "--url", stack.url, **{name: str(trusted)})
            assert (done.returncode, done.stdout) == (0, "Hello there.\n")
        other = launch("ask", "Why?", "--url", stack.url, REQUESTS_CA_BUNDLE=certifi.where())
        assert "next: set REQUESTS_CA_BUNDLE" in other.stderr
        missing = launch("ask", "Why?", "--url", stack.url, SSL_CERT_FILE=str(tmp_path / "none.pem"))
        assert missing.returncode == 78
        assert "SSL_CERT_FILE: there is no" in missing.stderr
        expired, trusted = certificate(tmp_path / "old", "IP:127.0.0.1", days=-1)
    with ScriptedStack(tls=expired) as stack:
        late = launch("ask", "Why?", "--url", stack.url, SSL_CERT_FILE=str(trusted))
        assert "certificate has expired" in late.stderr


def test_a_terminal_sees_a_sign_of_life_then_the_answer(stack: ScriptedStack) -> None:
    hold = Hold()
    stack.scripts = [says_and_holds(hold, (), ("Hello\x1b[2J", " there."))]
    with Terminal("ask", "Why?", R3MES_URL=stack.url) as terminal:
        terminal.wait_for("waiting for the first word")
        hold.release()
        assert terminal.end() == 0
        lines = terminal.lines()
        assert lines[0] == "Hello[2J there."
        assert lines[1].startswith("2 tokens; the first after ")
        assert len(lines) == 2
        assert not terminal.screen.cursor.hidden


def test_a_dumb_terminal_gets_text_alone(stack: ScriptedStack) -> None:
    with Terminal("ask", "Why?", R3MES_URL=stack.url, TERM="dumb") as terminal:
        assert terminal.end() == 0
        assert terminal.lines()[0] == "Hello there."
        assert "\x1b" not in terminal.written


def test_a_terminal_without_a_question_is_told_how_to_ask(stack: ScriptedStack) -> None:
    with Terminal("ask", R3MES_URL=stack.url) as terminal:
        assert terminal.end() == 2
        assert "r3mes chat" in terminal.text
