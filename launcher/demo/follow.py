"""Following a model through the downloader's event stream, across restarts of the downloader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import requests
from pydantic import TypeAdapter, ValidationError

from launcher.endpoints import error_message, session
from launcher.sse import event_data, response_lines
from shared.errors import NotReadyError, UsageError
from shared.states import ModelStatus

CONNECT_SECONDS = 3.0
SILENT_SECONDS = 20.0  # then connect anew: the stream's first event is the present state
AGAIN_SECONDS = 0.2
UNKNOWN_SECONDS = 10.0
_STATUS = TypeAdapter(ModelStatus)


def parse_status(data: str) -> ModelStatus | None:
    """Return the status in one event, or None where it is not one."""
    try:
        return _STATUS.validate_json(data)
    except ValidationError:
        return None


def statuses(base_url: str, digest: str, cancelled: threading.Event, *, api_key: str | None) -> Iterator[ModelStatus]:
    """Yield the model's status now and at every change, until `cancelled` is set.

    A downloader that is not up yet, or is started again, is waited for. Raises UsageError when it refuses the request
    for UNKNOWN_SECONDS: one that has just started knows no model before its first turn.
    """
    url = f"{base_url}/api/v1/models/{digest}/events"
    refused_since: float | None = None
    with session(api_key) as client:
        while not cancelled.is_set():
            try:
                with client.get(url, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)) as response:
                    if response.status_code == HTTPStatus.OK:
                        refused_since = None
                        yield from _parsed(response, cancelled)
                    elif response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                        refused_since = refused_since or time.monotonic()
                        if time.monotonic() - refused_since > UNKNOWN_SECONDS:
                            raise UsageError(f"the downloader refuses {url}: {error_message(response)}")
            except requests.RequestException:
                pass  # it went away, or is silent: again
            cancelled.wait(AGAIN_SECONDS)


def command(base_url: str, digest: str, verb: str, *, api_key: str | None) -> None:
    """Tell the downloader to `retry` or `resume` a model; raises NotReadyError when it does not."""
    try:
        with session(api_key) as client:
            answer = client.post(f"{base_url}/api/v1/models/{digest}/{verb}", timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        raise NotReadyError(f"the downloader does not take `{verb}`: {error}") from error
    if not answer.ok:
        raise NotReadyError(f"the downloader does not take `{verb}`: {error_message(answer)}")


def readiness(base_url: str) -> tuple[bool, str]:
    """Return whether a service is ready, and the reason it gives where it is not."""
    try:
        with session() as client:
            answer = client.get(f"{base_url}/readyz", timeout=CONNECT_SECONDS)
    except requests.RequestException:
        return False, "it does not answer yet"
    if answer.ok:
        return True, ""
    try:
        return False, str(answer.json()["reason"])
    except (ValueError, LookupError, TypeError):
        return False, f"HTTP {answer.status_code}"


def _parsed(response: requests.Response, cancelled: threading.Event) -> Iterator[ModelStatus]:
    for data in event_data(response_lines(response)):
        if cancelled.is_set():
            return
        if status := parse_status(data):
            yield status
