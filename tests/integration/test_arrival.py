"""The demo's first half against a scripted downloader over real HTTP: what it tells, undoes, and ends with."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.answer import Question
from launcher.demo.arrival import Arrival
from launcher.demo.environment import Wiring
from launcher.demo.places import demo_places
from launcher.demo.scene import CancelledError, Scene
from launcher.display import PlainDisplay
from shared.errors import DiskFullError, IntegrityError, SourceUnavailableError, UsageError
from shared.genesis import parse_genesis
from shared.states import FailureReason, ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.records import RejectedRecord
from tests.support.geneses import DIGEST, plain_form
from tests.support.waiting import wait_until

SIZE = 1_000_000
WRONG = "cd" * 32
PIN = parse_genesis(plain_form(), file="genesis.json").models[0]
ABSENT = ModelStatus(DIGEST, PIN.model_name, PIN.file_name, ModelState.ABSENT, expected_bytes=SIZE)


def at(state: ModelState, received: int = 0, *, reason: FailureReason | None = None, message: str = "") -> ModelStatus:
    return replace(ABSENT, state=state, received_bytes=received, reason=reason, message=message)


class ScriptedDownloader:
    """Each connection to the event stream gets the next list of statuses, then is cut; POSTs are remembered."""

    def __init__(self, *connections: list[ModelStatus], code: int = 200) -> None:
        self.connections = list(connections)
        self.commands: list[str] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                self.end_headers()
                if code != 200:
                    self.wfile.write(json.dumps({"error": {"message": "no such model"}}).encode())
                    return
                for status in script.connections.pop(0) if script.connections else []:
                    told = replace(status, updated_at=time.time())
                    self.wfile.write(f": note\n\ndata: {json.dumps(told.to_json())}\n\n".encode())

            def do_POST(self) -> None:
                script.commands.append(self.path.rpartition("/")[2])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Theatre:
    """Makes arrivals in one store."""

    def __init__(self, root: Path) -> None:
        self.layout = StoreLayout(root / "models")
        self.layout.rejected.mkdir(parents=True)
        self.cancelled = threading.Event()
        self.places = demo_places(root / "models", tamper=False)
        self._running: list[ScriptedDownloader] = []

    def arrival(self, downloader: ScriptedDownloader) -> Arrival:
        self._running.append(downloader)
        port = downloader.server.server_address[1]
        wiring = Wiring(
            self.layout.root, None, "http://127.0.0.1:9", {"downloader": int(port)}, self.layout.root, tamper=False
        )
        scene = Scene(PIN, SIZE, self.places, wiring, Question("?"), None, lambda: 0)
        return Arrival(scene, PlainDisplay(), self.cancelled)

    def reject(self, number: int) -> None:
        RejectedRecord(
            sha256=DIGEST,
            found=WRONG,
            size=SIZE,
            reason="mismatch",
            generation="0" * 32,
            source=None,
            revision="main",
            genesis_sha256=DIGEST,
            rejected_at=time.time(),
        ).write(self.layout.rejected_file(DIGEST, number))

    def close(self) -> None:
        for downloader in self._running:
            downloader.close()


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    theatre = Theatre(tmp_path)
    yield theatre
    theatre.close()


def test_a_whole_way_across_a_restart_of_the_downloader(theatre: Theatre, capsys: pytest.CaptureFixture[str]) -> None:
    downloader = ScriptedDownloader(
        [ABSENT, at(ModelState.DOWNLOADING, SIZE // 2)],
        [],
        [at(ModelState.DOWNLOADING, SIZE), at(ModelState.VERIFYING, SIZE), at(ModelState.VERIFIED, SIZE)],
    )
    arrival = theatre.arrival(downloader)
    arrival.watch()
    assert arrival.clock.download_seconds is not None
    assert arrival.clock.verify_seconds is not None
    said = capsys.readouterr().err
    assert "download: 500.0 kB of 1.0 MB (50 %)" in said
    assert "verify: 1.0 MB of 1.0 MB (100 %)" in said
    assert "the digest is the one that the genesis pins" in said


def test_a_model_that_is_there_is_not_downloaded_and_that_is_said(
    theatre: Theatre, capsys: pytest.CaptureFixture[str]
) -> None:
    theatre.arrival(ScriptedDownloader([at(ModelState.VERIFIED, SIZE)])).watch()
    said = capsys.readouterr().err
    assert "nothing is downloaded" in said
    assert "%" not in said


@pytest.mark.parametrize(("state", "verb"), [(ModelState.FAILED, "retry"), (ModelState.PAUSED, "resume")])
def test_what_an_earlier_run_left_waiting_is_undone_once(theatre: Theatre, state: ModelState, verb: str) -> None:
    left = at(state, reason=FailureReason.SOURCE_UNAVAILABLE if state is ModelState.FAILED else None)
    downloader = ScriptedDownloader([left], [at(ModelState.DOWNLOADING, 5), at(ModelState.VERIFIED, SIZE)])
    theatre.arrival(downloader).watch()
    assert downloader.commands == [verb]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (FailureReason.DISK_FULL, DiskFullError),
        (FailureReason.SOURCE_UNAVAILABLE, SourceUnavailableError),
        (FailureReason.UPSTREAM_MISMATCH, IntegrityError),
    ],
)
def test_a_failure_of_this_run_ends_it_with_its_message(
    theatre: Theatre, reason: FailureReason, error: type[Exception]
) -> None:
    failed = at(ModelState.FAILED, reason=reason, message="what happened")
    arrival = theatre.arrival(ScriptedDownloader([ABSENT, at(ModelState.DOWNLOADING, 5), failed]))
    with pytest.raises(error, match="what happened"):
        arrival.watch()


def test_wrong_bytes_end_it_after_the_source_s_last_try(theatre: Theatre, capsys: pytest.CaptureFixture[str]) -> None:
    theatre.reject(1)  # of an earlier run: does not count
    first = [ABSENT, at(ModelState.VERIFYING, SIZE)]
    second = [at(ModelState.DOWNLOADING, SIZE), at(ModelState.FAILED, reason=FailureReason.HASH_MISMATCH)]
    downloader = ScriptedDownloader(first)
    arrival = theatre.arrival(downloader)
    ended: list[IntegrityError] = []

    def watch() -> None:
        with pytest.raises(IntegrityError) as caught:
            arrival.watch()
        ended.append(caught.value)

    thread = threading.Thread(target=watch)
    thread.start()
    wait_until(lambda: not downloader.connections, what="the first try was watched")
    assert not ended
    theatre.reject(2)
    downloader.connections.append(second)
    thread.join(10)
    assert WRONG in ended[0].message
    said = capsys.readouterr().err
    assert f"found    sha256 {WRONG}" in said
    assert "download, try 2: 1.0 MB of 1.0 MB (100 %)" in said
    assert "holds nothing" in said


def test_a_lasting_refusal_of_the_downloader_is_an_error(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.demo.follow.UNKNOWN_SECONDS", 0.3)
    with pytest.raises(UsageError, match="no such model"):
        theatre.arrival(ScriptedDownloader(code=404)).watch()


def test_cancelling_ends_the_watch(theatre: Theatre) -> None:
    theatre.cancelled.set()
    with pytest.raises(CancelledError):
        theatre.arrival(ScriptedDownloader([ABSENT])).watch()
