"""Who has a turn when, and what wakes the threads that follow downloads."""

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from services.verifier import following as following_module
from services.verifier.follower import Follower
from services.verifier.following import Following, Turns
from services.verifier.linux import IN_MOVED_TO, Inotify
from services.verifier.verification import Verifier
from tests.support.slow_download import MIB, Download
from tests.support.verifier_stand import DIGEST, RIGHT
from tests.support.verifier_store import Store
from tests.support.waiting import wait_until


def test_a_digest_waits_once_however_often_it_is_woken() -> None:
    turns = Turns()
    for digest in ("a", "b", "a", "b"):
        turns.wake(digest)
    assert [turns.take(), turns.take()] == ["a", "b"]
    turns.end("a", more=False)
    turns.end("b", more=False)
    turns.wake("c")
    assert turns.take() == "c", "nobody else waited"


def test_who_has_more_to_do_waits_behind_the_others() -> None:
    turns = Turns()
    turns.wake("long")
    turns.wake("short")
    assert turns.take() == "long"
    turns.end("long", more=True)
    assert [turns.take(), turns.take()] == ["short", "long"]


def test_who_is_woken_during_its_turn_has_another_and_never_two_at_once() -> None:
    turns = Turns()
    turns.wake("a")
    assert turns.take() == "a"
    turns.wake("a")
    turns.wake("b")
    assert turns.take() == "b"
    turns.end("a", more=False)
    assert turns.take() == "a"


def test_closing_sends_everybody_home() -> None:
    turns = Turns()
    taken: list[str | None] = ["not yet"]
    waiting = threading.Thread(target=lambda: taken.append(turns.take()))
    waiting.start()
    turns.close()
    waiting.join(10)
    assert taken == ["not yet", None]


@pytest.fixture
def following(store: Store, verifier: Verifier) -> Iterator[Following]:
    following = Following(store.layout, Follower(verifier), verifier.stop)
    yield following
    following.close()


def is_followed(verifier: Verifier, until: int) -> bool:
    begun = verifier.copies.get(DIGEST)
    return begun is not None and begun.copy.hashing.done == until


def test_a_journal_wakes_it_at_once(
    store: Store, verifier: Verifier, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "LOOK_SECONDS", 3600.0)
    following.start()
    download = Download(store, RIGHT)
    for received in (MIB, 2 * MIB):
        download.receive(received)
        wait_until(lambda received=received: is_followed(verifier, received), what=f"{received} bytes")


def test_without_inotify_it_looks_by_the_clock(
    store: Store, verifier: Verifier, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(following_module, "Inotify", refuse)
    monkeypatch.setattr(following_module, "LOOK_SECONDS", 0.05)
    following.start()
    download = Download(store, RIGHT)
    for received in (MIB, 2 * MIB):
        download.receive(received)
        wait_until(lambda received=received: is_followed(verifier, received), what=f"{received} bytes")


def test_a_thread_that_fails_ends_the_process(
    store: Store, verifier: Verifier, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_follower: Follower, _digest: str) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(Follower, "step", fail)
    following.start()
    Download(store, RIGHT).receive(MIB)
    assert verifier.stop.wait(10)
    wait_until(lambda: following.has_failed, what="the failure is known")


def test_inotify_tells_names_and_says_nothing_of_a_quiet_directory(store: Store) -> None:
    inotify = Inotify()
    number = inotify.watch(str(store.layout.incoming), IN_MOVED_TO)
    assert inotify.watch(str(store.layout.incoming), IN_MOVED_TO) == number
    assert inotify.read() == []
    (store.layout.root / "new").write_bytes(b"")
    (store.layout.root / "new").rename(store.layout.incoming / "journal.json")
    assert inotify.read() == [(number, "journal.json")]
    with pytest.raises(NotADirectoryError):
        inotify.watch(str(store.layout.genesis), IN_MOVED_TO)
    (store.layout.root / "link").symlink_to(store.layout.incoming)
    with pytest.raises(NotADirectoryError):
        inotify.watch(str(store.layout.root / "link"), IN_MOVED_TO)
    inotify.close()
