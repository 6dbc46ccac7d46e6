import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shared.hints import RedisHints
from shared.redis_link import RedisAwayError, RedisLink, translated
from shared.states import ModelState, ModelStatus, VerificationProgress
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

DIGEST = "a" * 64
STATUS = ModelStatus(DIGEST, "Tiny", "tiny.gguf", ModelState.DOWNLOADING, received_bytes=5)
PROGRESS = VerificationProgress(DIGEST, "b" * 32, 50, 100, 1.0)


@pytest.fixture
def link(clean_redis: str) -> Iterator[RedisLink]:
    link = RedisLink(clean_redis)
    yield link
    link.close()


@pytest.fixture
def hints(link: RedisLink) -> RedisHints:
    return RedisHints(link, "local")


def test_progress_is_read_back_and_forgotten_after_a_while(link: RedisLink, hints: RedisHints) -> None:
    assert hints.read_verification(DIGEST) is None
    assert hints.publish_verification(PROGRESS)
    assert hints.read_verification(DIGEST) == PROGRESS
    assert 0 < link.raw.ttl(f"r3mes:local:verification:{DIGEST}") <= 60


@pytest.mark.parametrize("value", [b"{}", b"null", b"\xff", b'{"sha256": 1}', b"[" * 100_000])
def test_progress_that_somebody_else_wrote_is_none(link: RedisLink, hints: RedisHints, value: bytes) -> None:
    link.raw.set(f"r3mes:local:verification:{DIGEST}", value)
    assert hints.read_verification(DIGEST) is None


@pytest.mark.parametrize("value", [b"-1", b"x", b"", b"1" * 30, b"1.5", "\u0661".encode()])
def test_a_copy_size_that_is_none_counts_as_nothing(link: RedisLink, hints: RedisHints, value: bytes) -> None:
    link.raw.set(f"r3mes:local:copy:{DIGEST}", value)
    assert hints.read_copy_size(DIGEST) == 0


def test_a_copy_size_is_read_back(hints: RedisHints) -> None:
    assert hints.read_copy_size(DIGEST) == 0
    hints.publish_copy_size(DIGEST, 4_900_000_000)
    assert hints.read_copy_size(DIGEST) == 4_900_000_000


def test_a_hint_of_another_type_is_none(link: RedisLink, hints: RedisHints) -> None:
    link.raw.rpush(f"r3mes:local:copy:{DIGEST}", "1")
    assert hints.read_copy_size(DIGEST) == 0


class Listener:
    def __init__(self, hints: RedisHints) -> None:
        self.heard: list[tuple[str, str]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._listen, args=(hints,))
        self.thread.start()

    def _listen(self, hints: RedisHints) -> None:
        for kind, digest in hints.listen(self.stop, poll_seconds=0.1):
            self.heard.append((kind, digest))

    def end(self) -> None:
        self.stop.set()
        self.thread.join(15)
        assert not self.thread.is_alive()


@pytest.fixture
def listener(hints: RedisHints) -> Iterator[Listener]:
    listener = Listener(hints)
    yield listener
    listener.end()


def test_announcements_are_heard(hints: RedisHints, listener: Listener) -> None:
    wait_until(lambda: hints.publish_status(STATUS) and ("status", DIGEST) in listener.heard, what="the status")
    hints.publish_verification(PROGRESS)
    hints.announce("verdict", DIGEST)
    wait_until(lambda: listener.heard[-2:] == [("progress", DIGEST), ("verdict", DIGEST)], what="both")


def test_nothing_on_the_channel_ends_the_listener(link: RedisLink, hints: RedisHints, listener: Listener) -> None:
    wait_until(lambda: hints.announce("verdict", DIGEST) and listener.heard, what="the listener to listen")
    others: list[bytes] = [
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"{}",
        json.dumps({"type": 1, "sha256": DIGEST}).encode(),
        json.dumps({"type": "verdict", "sha256": "../x"}).encode(),
    ]
    for message in others:
        link.raw.publish(hints.channel, message)
    listener.heard.clear()
    wait_until(lambda: hints.announce("status", DIGEST) and ("status", DIGEST) in listener.heard, what="the next one")
    assert {kind for kind, _digest in listener.heard} <= {"status", "verdict"}


def test_a_listener_and_publishers_survive_a_redis_that_goes_away(own_redis: RedisServer) -> None:
    link = RedisLink(own_redis.url)
    hints = RedisHints(link, "local")
    listener = Listener(hints)
    try:
        wait_until(lambda: hints.announce("verdict", DIGEST) and listener.heard, what="the listener to listen")
        own_redis.kill()
        assert not hints.publish_status(STATUS)
        assert not hints.publish_verification(PROGRESS)
        assert not hints.publish_copy_size(DIGEST, 1)
        assert hints.read_verification(DIGEST) is None
        assert hints.read_copy_size(DIGEST) == 0
        listener.heard.clear()
        own_redis.start()
        wait_until(lambda: hints.announce("verdict", DIGEST) and listener.heard, 20, "the listener to hear again")
    finally:
        listener.end()
        link.close()


def test_an_idle_listener_stops_soon(hints: RedisHints) -> None:
    listener = Listener(hints)
    listener.end()


def test_the_status_is_kept_until_it_changes(link: RedisLink, hints: RedisHints) -> None:
    hints.publish_status(STATUS)
    hints.publish_status(replace(STATUS, received_bytes=6))
    key = f"r3mes:local:model:{DIGEST}"
    assert json.loads(link.client.get(key) or "")["received_bytes"] == 6
    assert link.raw.ttl(key) == -1


def test_the_place_that_is_logged_has_no_password() -> None:
    assert RedisLink("redis://user:hunter2@127.0.0.1:6380/0").place == "127.0.0.1:6380"


def test_library_errors_become_ours_at_the_border(own_redis: RedisServer) -> None:
    link = RedisLink(own_redis.url)
    own_redis.kill()
    assert not link.is_up()
    with pytest.raises(RedisAwayError), translated():
        link.client.ping()
    stop = threading.Event()
    stop.set()
    assert not link.wait_until_up(stop)
