"""What the processes of one node tell each other through Redis: hints only, each lost without harm.

Keys, all under `r3mes:<node>:` — `model:<sha256>` the downloader's status document, `verification:<sha256>` the
verifier's progress, `copy:<sha256>` the bytes of an unnamed private copy. Channel `r3mes:<node>:events`: a JSON object
with `type` (`status`, `progress`, `verdict`) and `sha256`. Every call tolerates a Redis that is away.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Literal

import redis
from pydantic import TypeAdapter, ValidationError

from shared.redis_link import RedisAwayError, RedisLink, translated
from shared.states import ModelStatus, VerificationProgress
from shared.store.layout import is_digest

# A hint that nobody renews says nothing after this time.
HINT_SECONDS = 60
EventType = Literal["status", "progress", "verdict"]

_SIZE = re.compile(r"[0-9]{1,18}")
_PROGRESS = TypeAdapter(VerificationProgress)


class RedisHints:
    """Publishing and reading of the hints of one node."""

    def __init__(self, link: RedisLink, node: str) -> None:
        self._link = link
        self._prefix = f"r3mes:{node}:"
        self.channel = f"{self._prefix}events"

    def publish_status(self, status: ModelStatus) -> bool:
        """Keep a model's status and announce it; False when Redis is away."""
        return self._set(f"model:{status.sha256}", json.dumps(status.to_json()), expire=None) and self.announce(
            "status", status.sha256
        )

    def publish_verification(self, progress: VerificationProgress) -> bool:
        """Keep how far a verification is and announce it; False when Redis is away."""
        key = f"verification:{progress.sha256}"
        return self._set(key, json.dumps(asdict(progress)), expire=HINT_SECONDS) and self.announce(
            "progress", progress.sha256
        )

    def read_verification(self, digest: str) -> VerificationProgress | None:
        """Return how far the verification of `digest` is, or None."""
        text = self._get(f"verification:{digest}")
        try:
            return None if text is None else _PROGRESS.validate_json(text)
        except ValidationError:
            return None

    def publish_copy_size(self, digest: str, size: int) -> bool:
        """Tell how many bytes the unnamed copy of `digest` occupies (0: none); False when Redis is away."""
        return self._set(f"copy:{digest}", str(size), expire=HINT_SECONDS)

    def read_copy_size(self, digest: str) -> int:
        """Return the bytes of the unnamed copy of `digest`; 0 when nothing is known."""
        text = self._get(f"copy:{digest}")
        return int(text) if text is not None and _SIZE.fullmatch(text) else 0

    def announce(self, kind: EventType, digest: str) -> bool:
        """Wake whoever listens; False when Redis is away."""
        try:
            with translated():
                self._link.client.publish(self.channel, json.dumps({"type": kind, "sha256": digest}))
        except RedisAwayError:
            return False
        return True

    def listen(self, stop: threading.Event, *, poll_seconds: float = 0.5) -> Iterator[tuple[str, str]]:
        """Yield `(type, sha256)` of every announcement until `stop` is set; survives a Redis that goes away."""
        while self._link.wait_until_up(stop):
            pubsub = self._link.pubsub()
            try:
                with translated():
                    pubsub.subscribe(self.channel)
                while not stop.is_set():
                    with translated():
                        message = pubsub.get_message(timeout=poll_seconds)
                    event = _parse_event(message)
                    if event is not None:
                        yield event
            except (RedisAwayError, UnicodeDecodeError):  # away, or somebody published what is no text: begin anew
                stop.wait(poll_seconds)
            finally:
                _close_quietly(pubsub)

    def _set(self, key: str, value: str, *, expire: int | None) -> bool:
        try:
            with translated():
                self._link.client.set(self._prefix + key, value, ex=expire)
        except RedisAwayError:
            return False
        return True

    def _get(self, key: str) -> str | None:
        try:
            with translated():
                value = self._link.client.get(self._prefix + key)
        except (RedisAwayError, UnicodeDecodeError):
            return None
        return value if isinstance(value, str) else None


def _parse_event(message: object) -> tuple[str, str] | None:
    try:
        document = json.loads(message["data"]) if isinstance(message, dict) else None
    except (ValueError, RecursionError, TypeError):
        return None
    if not isinstance(document, dict):
        return None
    kind, digest = document.get("type"), document.get("sha256")
    return (kind, str(digest)) if isinstance(kind, str) and is_digest(digest) else None


def _close_quietly(pubsub: redis.client.PubSub) -> None:
    try:
        pubsub.close()
    except (redis.RedisError, OSError):
        return  # the connection is gone already
