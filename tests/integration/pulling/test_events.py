"""The event stream of a stack that goes away, forgets the model, or is something else altogether."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import stack as stacks
from launcher.display import PlainDisplay
from launcher.endpoints import ClientSettings
from launcher.ports import free_port
from launcher.stack import Stack, find_stack
from shared.errors import ConfigurationError, NotReadyError, R3mesError, UsageError
from shared.states import ModelState, ModelStatus
from tests.support.certificates import certificate
from tests.support.origin_server import Answer, Script, ScriptedOrigin, in_turn, status
from tests.support.pulling import NOBODY
from tests.support.scripted_stack import ScriptedStack
from tests.support.waiting import wait_until

STATUS = ModelStatus("a" * 64, "Tiny", "tiny.gguf", ModelState.DOWNLOADING, received_bytes=1)
EVENTS = f"/api/v1/models/{STATUS.sha256}/events"


def events(*statuses: ModelStatus, keep: bool = False) -> Script:
    """Send these statuses, then end, or keep the connection."""

    def script(answer: Answer) -> None:
        answer.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for each in statuses:
            event = f"event: status\ndata: {json.dumps(each.to_json())}\n\n".encode()
            answer.body(b"%x\r\n%b\r\n" % (len(event), event))
        if keep:
            answer.stall()
        answer.body(b"0\r\n\r\n")

    return script


def test_a_stream_that_ends_is_asked_for_anew_and_nothing_is_said_of_it(
    origin: ScriptedOrigin, capsys: pytest.CaptureFixture[str]
) -> None:
    verified = replace(STATUS, state=ModelState.VERIFIED)
    origin.scripts[EVENTS] = in_turn(events(STATUS), events(verified, keep=True))
    statuses = Stack(origin.url, None).statuses(STATUS.sha256, threading.Event(), PlainDisplay())
    assert next(statuses).state is ModelState.DOWNLOADING
    wait_until(lambda: next(statuses).state is ModelState.VERIFIED, 20, "the second stream")
    statuses.close()
    assert capsys.readouterr().err == ""


def test_a_status_is_told_again_and_again_and_a_stop_is_seen_within_a_moment(origin: ScriptedOrigin) -> None:
    origin.scripts[EVENTS] = events(STATUS, keep=True)
    stop = threading.Event()
    statuses = Stack(origin.url, None).statuses(STATUS.sha256, stop, PlainDisplay())
    assert [next(statuses) for _ in range(3)] == [STATUS] * 3
    stop.set()
    begun = time.monotonic()
    assert list(statuses) == []
    assert time.monotonic() - begun < 5


def test_a_stack_that_stays_away_is_given_up_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "GIVE_UP_SECONDS", 1.5)
    with pytest.raises(NotReadyError, match="does not answer any more"):
        list(Stack(NOBODY, None).statuses(STATUS.sha256, threading.Event(), PlainDisplay()))
    assert capsys.readouterr().err == f"the connection to {NOBODY} is lost; it is made anew\n"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (status(404), NotReadyError),
        (status(200, body=b"data: 7\n\n"), UsageError),
    ],
)
def test_what_asking_again_does_not_cure_ends_the_watching(
    origin: ScriptedOrigin, script: Script, error: type[R3mesError]
) -> None:
    origin.scripts[EVENTS] = script
    with pytest.raises(error):
        list(Stack(origin.url, None).statuses(STATUS.sha256, threading.Event(), PlainDisplay()))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (status(200, body=b"<html>"), UsageError),
        (status(200, body=b'{"models": [{"sha256": 7}]}'), UsageError),
        (status(404), UsageError),
        (status(401), ConfigurationError),
        (status(503), NotReadyError),
    ],
)
def test_what_is_no_stack_is_named_if_somebody_said_that_it_is_one_and_passed_over_if_not(
    origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch, script: Script, error: type[R3mesError]
) -> None:
    origin.scripts["/api/v1/models"] = script
    with pytest.raises(error):
        find_stack(ClientSettings(url=origin.url))
    monkeypatch.setattr(stacks, "base_url", lambda *_: origin.url)  # the usual port, whose owner is somebody else
    assert find_stack(ClientSettings()) is None


def test_nobody_at_all_is_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NotReadyError, match=f"no answer from {url}: nothing listens there"):
        find_stack(ClientSettings(url=url))
    monkeypatch.setattr(stacks, "base_url", lambda *_: url)
    assert find_stack(ClientSettings()) is None


def test_a_certificate_that_is_not_accepted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    context, _ = certificate(tmp_path, "IP:127.0.0.1")
    with ScriptedStack(tls=context) as stack, pytest.raises(ConfigurationError, match="certificate is not accepted"):
        find_stack(ClientSettings(url=stack.url))
