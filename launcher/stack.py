"""A running stack as a command sees it: its models, an operator's word to it, and a model's status as it changes.

The downloader answers, by itself or behind the gateway. Its event stream is read by a thread of its own, so that nobody
who waits for an event is deaf to anything else.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from pydantic import TypeAdapter, ValidationError

from launcher.display import Display
from launcher.endpoints import ClientSettings, base_url, error_message, no_answer, session
from launcher.sse import event_data, response_lines
from shared.errors import ConfigurationError, NotReadyError, R3mesError, UsageError
from shared.states import ModelStatus

ANSWER_SECONDS = 10.0
TICK_SECONDS = 0.25
# The downloader sends a comment every 15 s when nothing changes: who is silent for longer is gone.
SILENT_SECONDS = 40.0
# An event stream that says nothing new is asked for anew after this, whoever may have forgotten us.
QUIET_SECONDS = 60.0
AGAIN_SECONDS = 0.5
# A downloader that is started anew is back in seconds.
GIVE_UP_SECONDS = 60.0
_MODELS = TypeAdapter(tuple[ModelStatus, ...])
_MODEL = TypeAdapter(ModelStatus)


def find_stack(settings: ClientSettings) -> Stack | None:
    """Return the stack that answers, None where none does and none was named.

    Raises NotReadyError when `R3MES_URL` does not answer, UsageError when it is no downloader, ConfigurationError for a
    certificate that is not accepted or a wrong API key.
    """
    stack = Stack(base_url(settings, "downloader"), settings.api_key)
    try:
        stack.models()
    except (ConfigurationError, NotReadyError, UsageError):
        if settings.url:
            raise
        return None  # nobody is there, or somebody else has the usual port
    return stack


@dataclass(frozen=True, slots=True)
class Stack:
    """The downloader at `url`; `api_key` is sent if there is one."""

    url: str
    api_key: str | None

    def models(self) -> tuple[ModelStatus, ...]:
        """Return every model in the genesis's order; raises NotReadyError, UsageError when it is no downloader."""
        document = self._json("GET", "/api/v1/models")
        try:
            return _MODELS.validate_python(document["models"])
        except (LookupError, TypeError, ValidationError) as error:
            raise UsageError(f"{self.url} is not a downloader of R3MES", next_step="check R3MES_URL") from error

    def tell(self, digest: str, verb: str) -> ModelStatus:
        """Tell the downloader an operator's word; return the model's status.

        Raises ConfigurationError when it wants another API key or its certificate is not accepted, NotReadyError when
        it does not answer or does not pin the model any more.
        """
        document = self._json("POST", f"/api/v1/models/{digest}/{verb}")
        try:
            return _MODEL.validate_python(document)
        except ValidationError as error:
            raise UsageError(f"{self.url} is not a downloader of R3MES", next_step="check R3MES_URL") from error

    def statuses(self, digest: str, stop: threading.Event, display: Display) -> Iterator[ModelStatus]:
        """Yield the model's status now, at every change, and again every TICK_SECONDS, until `stop` is set.

        A connection that drops is made anew. Raises NotReadyError when the downloader stays away, or does not pin the
        model any more.
        """
        reader = _Reader(self, digest)
        reader.start()
        last: ModelStatus | None = None
        lost_at: float | None = None
        try:
            while not stop.is_set():
                match reader.next(TICK_SECONDS):
                    case ModelStatus() as last:
                        lost_at = None
                    case R3mesError() as error:
                        raise error
                    case _Lost() if lost_at is None:
                        lost_at = time.monotonic()
                        display.say(f"the connection to {self.url} is lost; it is made anew")
                    case _:
                        pass
                if lost_at is not None and time.monotonic() - lost_at > GIVE_UP_SECONDS:
                    raise NotReadyError(
                        f"{self.url} does not answer any more", next_step="look at the stack; what came is kept"
                    )
                if last is not None and lost_at is None:
                    yield last
        finally:
            reader.over.set()

    def _json(self, method: str, path: str) -> Any:  # noqa: ANN401 - as it came
        try:
            with session(self.api_key) as client:
                answer = client.request(method, f"{self.url}{path}", timeout=ANSWER_SECONDS)
        except requests.RequestException as error:
            raise no_answer(self.url, error, next_step="check R3MES_URL, or start the stack") from error
        if not answer.ok:
            raise self._refusal(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise UsageError(f"{self.url} is not a downloader of R3MES", next_step="check R3MES_URL") from error

    def _refusal(self, answer: requests.Response) -> R3mesError:
        said = error_message(answer)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            what = "takes another API key than the first of R3MES_API_KEYS" if self.api_key else "wants an API key"
            return ConfigurationError(
                f"{self.url} {what}",
                next_step="set R3MES_API_KEYS, or R3MES_API_KEYS_FILE, to a key that the stack knows",
            )
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return NotReadyError(f"{self.url}: {said}", next_step="wait until the stack is up: r3mes status")
        if answer.status_code == HTTPStatus.NOT_FOUND and "/models/" in answer.url:
            return NotReadyError(f"{self.url}: {said}", next_step="r3mes genesis show")
        return UsageError(f"{self.url}: {said}", next_step="check R3MES_URL")


@dataclass(frozen=True, slots=True)
class _Lost:
    """The connection is gone, or was not to be had."""


class _Reader(threading.Thread):
    """Reads the event stream of one model, again and again, until `over`."""

    def __init__(self, stack: Stack, digest: str) -> None:
        super().__init__(name="events", daemon=True)
        self._stack = stack
        self._digest = digest
        self._box: queue.SimpleQueue[ModelStatus | R3mesError | _Lost] = queue.SimpleQueue()
        self.over = threading.Event()

    def next(self, seconds: float) -> ModelStatus | R3mesError | _Lost | None:
        """Return what was read next, None when nothing was for so long."""
        try:
            return self._box.get(timeout=seconds)
        except queue.Empty:
            return None

    def run(self) -> None:
        """Read until it is over, or refused for good."""
        while not self.over.is_set():
            try:
                if refusal := self._read():
                    self._box.put(refusal)
                    return
            except requests.RequestException:
                self._box.put(_Lost())
            self.over.wait(AGAIN_SECONDS)

    def _read(self) -> R3mesError | None:
        """Read one stream to its end; return an error that asking again does not cure. Raises RequestException."""
        url = f"{self._stack.url}/api/v1/models/{self._digest}/events"
        with (
            session(self._stack.api_key) as client,
            client.get(url, stream=True, timeout=(ANSWER_SECONDS, SILENT_SECONDS)) as answer,
        ):
            if answer.status_code == HTTPStatus.NOT_FOUND:
                return NotReadyError("the stack does not pin this model any more", next_step="r3mes genesis show")
            answer.raise_for_status()
            for data in event_data(_while_new(response_lines(answer))):
                if self.over.is_set():
                    return None
                try:
                    self._box.put(_MODEL.validate_json(data))
                except ValidationError as error:
                    return UsageError(f"{url} says what no downloader of R3MES says: {error.error_count()} errors")
        return None


def _while_new(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines until nothing but comments came for QUIET_SECONDS."""
    heard_at = time.monotonic()
    for line in lines:
        if line.startswith(b"data:"):
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > QUIET_SECONDS:
            return
        yield line
