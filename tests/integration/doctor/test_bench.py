"""`r3mes bench`: honest figures, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pexpect
import psutil
import pyte
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from launcher.bench.disk import measure_disk
from launcher.bench.figures import Figure, Missing
from launcher.bench.hashing import measure_hash
from launcher.bench.inference import Asker, measure_inference
from launcher.bench.link import measure_link
from launcher.bench.miner import running_miner
from launcher.endpoints import ClientSettings
from launcher.interrupts import StoppedError
from shared.acceptance import load_init_settings, start_store
from tests.integration.miner.stand import MODEL_NAME, Store
from tests.support.doctor_host import DATA, DoctorHost, play_hugging_face
from tests.support.r3mes_shell import R3MES

MEMORY = Path("/dev/shm")  # noqa: S108  where Linux has it


def quiet(_stage: str, _done: int, _total: int) -> None:
    pass


def test_the_link_is_measured_by_ranges_of_the_pinned_source(host: DoctorHost, httpserver: HTTPServer) -> None:
    subject = host.subject(HF_ENDPOINT=play_hugging_face(httpserver))
    first, rate = measure_link(subject, quiet, threading.Event())
    assert isinstance(first, Figure)
    assert isinstance(rate, Figure)
    assert (first.name, first.unit, len(first.values)) == ("time to first byte", "ms", 3)
    assert (rate.name, rate.unit, len(rate.values)) == ("link rate", "MB/s", 3)
    assert min(*first.values, *rate.values) > 0
    assert "warm-up" in rate.how
    ranges = [request.headers["Range"] for request, _ in httpserver.log if request.method == "GET"]
    assert ranges[1:] == [f"bytes=0-{len(DATA) - 1}"] * 3


@pytest.mark.parametrize(("offline", "why"), [(True, "--offline"), (False, "Connection refused")])
def test_without_a_link_it_says_so(host: DoctorHost, offline: bool, why: str) -> None:
    (missing,) = measure_link(host.subject(offline=offline), quiet, threading.Event())
    assert isinstance(missing, Missing)
    assert why in missing.why


@pytest.mark.slow
def test_the_disk_is_written_with_fsync_and_read_past_the_cache_and_left_empty(tmp_path: Path) -> None:
    measured = measure_disk(tmp_path / "store", quiet, threading.Event())
    names = [each.name for each in measured]
    assert list(tmp_path.iterdir()) == []
    if names == ["disk"]:
        pytest.skip("no disk to measure here")
    assert names == ["disk write", "disk read"]
    write, read = measured
    assert isinstance(write, Figure)
    assert "fsync" in write.how
    assert isinstance(read, Missing) or "past the page cache" in read.how


def test_memory_is_not_sold_as_a_disk() -> None:
    if not MEMORY.is_dir():
        pytest.skip("no file system in memory here")
    (missing,) = measure_disk(MEMORY / "r3mes-is-not-there", quiet, threading.Event())
    assert isinstance(missing, Missing)
    assert "in memory" in missing.why


def test_a_stop_is_heeded_within_a_round(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        measure_disk(tmp_path, quiet, stop)
    with pytest.raises(StoppedError):
        measure_hash(quiet, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_miner_that_refuses_is_no_figure(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/completions").respond_with_response(
        Response('{"error": {"message": "too many requests wait"}}', 429, content_type="application/json")
    )
    asker = Asker(httpserver.url_for("").rstrip("/"), "Tiny", None, threading.Event())
    (missing,) = measure_inference(asker, "the miner", quiet, threading.Event())
    asker.close()
    assert isinstance(missing, Missing)
    assert "too many requests wait" in missing.why


def test_a_miner_that_runs_is_asked_for_new_prompts_and_nothing_from_the_cache(httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        body = request.get_json()
        if not body.get("stream"):
            tokens = len(body["prompt"].split())
            return Response(json.dumps({"usage": {"prompt_tokens": tokens}}), content_type="application/json")
        chunks = [{"choices": [{"text": "a"}]} for _ in range(body["max_tokens"])]
        chunks.append({"choices": [], "usage": {"completion_tokens": body["max_tokens"]}})
        return Response(
            "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n",
            content_type="text/event-stream",
        )

    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "Tiny"}]})
    httpserver.expect_request("/v1/completions").respond_with_handler(answer)
    found = running_miner(ClientSettings(R3MES_URL=httpserver.url_for("").rstrip("/")))
    assert found is not None
    asker = Asker(found.url, found.model, "a-key", threading.Event())
    prefill, decode = measure_inference(asker, found.where, quiet, threading.Event())
    asker.close()
    assert isinstance(prefill, Figure)
    assert isinstance(decode, Figure)
    assert (prefill.name, prefill.unit, len(prefill.values)) == ("prefill", "tokens/s", 3)
    assert "512 tokens of prompt" in prefill.how
    assert "128 tokens" in decode.how
    bodies = [request.get_json() for request, _ in httpserver.log if request.path == "/v1/completions"]
    assert all(body["cache_prompt"] is False and body["ignore_eos"] and body["model"] == "Tiny" for body in bodies)
    prompts = [body["prompt"] for body in bodies]
    assert len(set(prompts)) == len(prompts)
    assert running_miner(ClientSettings(R3MES_URL="http://127.0.0.1:1")) is None
    assert running_miner(ClientSettings(R3MES_URL="http://stack.example:8000"), offline=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_is_left_in_the_store_s_file_system(host: DoctorHost, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*R3MES, "bench", "--offline"],
        cwd=host.project,
        env=host.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "disk write: round 1" not in (line := process.stderr.readline()):
            assert line, "it ended"
            if "hash" in line:
                process.kill()
                pytest.skip("no disk to measure here")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list(host.home.iterdir()) == []


@pytest.mark.slow
def test_without_anything_verified_it_says_what_to_do(host: DoctorHost) -> None:
    done = host.run("bench", "--offline")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["median", "min", "max", "unit", "rounds"]
    assert "inference: not measured: no miner runs, and no pinned model is verified here; next: " in done.stdout
    assert "hash: round 1 of 5\n" in done.stderr
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)


@pytest.mark.slow
def test_on_a_terminal_the_table_stands_on_stdout_and_the_rounds_above_it(host: DoctorHost) -> None:
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "launcher", "bench", "--offline"],
        env={**host.environ, "TERM": "xterm-256color"},
        cwd=str(host.project),
        encoding="utf-8",
        dimensions=(40, 80),
        timeout=100,
    )
    try:
        terminal.expect(pexpect.EOF)
        said = terminal.before or ""
        terminal.close()
    finally:
        terminal.close(force=True)
    assert terminal.exitstatus == 0
    screen = pyte.Screen(80, 40)
    pyte.Stream(screen).feed(said)
    shown = [line.split() for line in screen.display]
    assert ["median", "min", "max", "unit", "rounds"] in shown
    assert any(line[:1] == ["hash"] and line[-2:] == ["GB/s", "5"] for line in shown)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_verified_model_is_measured_by_a_miner_of_its_own_that_is_gone_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path)
    environ = {
        **os.environ,
        "R3MES_MODELS_DIR": str(store.layout.root),
        "R3MES_GENESIS": str(store.genesis),
        "R3MES_THREADS": "1",
        "R3MES_URL": "http://127.0.0.1:1",  # whatever else runs on this machine
    }
    start_store(*load_init_settings(environ, project=tmp_path))
    store.put_model()
    done = subprocess.run(
        [*R3MES, "bench", "--offline", "--json"], env=environ, capture_output=True, text=True, timeout=350, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    figures = {each["name"]: each for each in document["figures"]}
    assert {"hash", "prefill", "decode"} <= figures.keys(), document["missing"]
    for name in ("prefill", "decode"):
        figure = figures[name]
        assert (figure["unit"], figure["rounds"]) == ("tokens/s", 3)
        assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert "warm-up" in figure["how"]
    assert MODEL_NAME in figures["decode"]["how"]
    assert any("answer of 200 words" in line for line in document["meaning"])
    assert "no miner runs: starting one" in done.stderr
    assert not [each for each in psutil.process_iter(["environ"]) if _works_on(store, each)]


def _works_on(store: Store, process: psutil.Process) -> bool:
    return (process.info["environ"] or {}).get("R3MES_MODELS_DIR") == str(store.layout.root)
