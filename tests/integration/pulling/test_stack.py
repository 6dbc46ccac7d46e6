"""`r3mes pull` and the operator's words beside a real downloader and a real verifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from launcher.ports import free_port
from tests.support.downloader_process import MIB, Downloader
from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader
from tests.support.importing import is_verified, run_r3mes
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged, redirect, status
from tests.support.pulling import Pull, alone, verifier

pytestmark = pytest.mark.slow

KEY = "secret-of-the-stack"


@pytest.fixture
def hold(origin: ScriptedOrigin) -> Hold:
    """The origin gives a third of the file, and the rest when it is released."""
    hold = Hold(after=MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    return hold


@pytest.fixture
def running(home: Path, origin: ScriptedOrigin, hold: Hold, clean_redis: str) -> Iterator[Downloader]:
    """A downloader that is found by `R3MES_URL`, also after a restart, and its verifier; the origin holds."""
    assert not hold.reached.is_set()
    port = free_port()
    service = downloader(home, origin, R3MES_REDIS_URL=clean_redis, R3MES_LISTEN=f"127.0.0.1:{port}")
    service.environ["R3MES_URL"] = f"http://127.0.0.1:{port}"
    with ExitStack() as ends:
        ends.callback(service.kill)
        service.start()
        ends.enter_context(verifier(service))
        yield service


def test_a_stack_is_asked_and_watched_until_the_model_is_verified(running: Downloader, hold: Hold) -> None:
    with Pull(running) as pull:
        pull.wait_for("Tiny: from Hugging Face")
        pull.wait_for("download: ")
        hold.release()
        assert pull.wait() == 0, pull.stderr
        assert pull.stdout == f"Tiny: verified, 3.1 MB from huggingface, sha256 {DIGEST}\n"
        assert f"asking the stack at {running.url}" in pull.stderr
        assert "verify: 3.1 MB of 3.1 MB (100 %)" in pull.stderr
        assert not {"\r", "\x1b"} & set(pull.stderr)
    assert is_verified(running)

    again = run_r3mes(running, "pull", "--json")
    assert again.returncode == 0
    document = json.loads(again.stdout)
    assert document["origin"] == running.url
    assert [each["result"] for each in document["models"]] == ["already_verified"]


def test_ctrl_c_ends_the_watching_and_not_the_download(running: Downloader, hold: Hold) -> None:
    with Pull(running, "Tiny") as pull:
        pull.wait_for("download: ")
        assert pull.interrupt() == 130
        assert "stopped watching: the stack goes on" in pull.stderr
        assert pull.stdout == ""
    assert running.status(DIGEST)["state"] == "downloading"
    with Pull(running, "Tiny") as pull:
        pull.wait_for("are here already; going on from there")
        hold.release()
        assert pull.wait() == 0, pull.stderr


def test_a_downloader_that_is_started_anew_is_found_again_and_the_loss_is_told_once(
    running: Downloader, hold: Hold
) -> None:
    with Pull(running) as pull:
        pull.wait_for("download: ")
        running.kill()
        pull.wait_for("the connection to ")
        running.start()
        hold.release()
        assert pull.wait() == 0, pull.stderr
        assert pull.stderr.count("is lost; it is made anew") == 1


def test_a_failure_ends_with_its_exit_code_and_says_when_the_stack_tries_again(
    home: Path, origin: ScriptedOrigin
) -> None:
    origin.scripts[PATH] = status(404)
    with downloader(home, origin) as service:
        service.wait_for(DIGEST, "failed")
        done = run_r3mes(service, "pull", R3MES_URL=service.url)
        assert done.returncode == 4, done.stderr
        assert done.stdout == ""
        assert "error: Tiny: source unavailable: huggingface: " in done.stderr
        assert "the stack tries again at " in done.stderr
        with Pull(service, "--wait", R3MES_URL=service.url) as pull:
            pull.wait_for("; tried again at ")
            assert pull.process.poll() is None
            assert pull.interrupt() == 130


def test_the_operators_words_reach_the_stack_and_the_key_that_is_missing_is_named(
    home: Path, origin: ScriptedOrigin, hold: Hold
) -> None:
    with downloader(home, origin, R3MES_API_KEYS=KEY) as service:
        service.wait_received(DIGEST, 1)
        here = {"R3MES_URL": service.url, "R3MES_API_KEYS": ""}
        for command in ("pause", "pull"):
            refused = run_r3mes(service, command, **here)
            assert refused.returncode == 78, refused.stderr
            assert "wants an API key" in refused.stderr
            assert "R3MES_API_KEYS" in refused.stderr
        wrong = run_r3mes(service, "pause", **here | {"R3MES_API_KEYS": "another"})
        assert wrong.returncode == 78
        assert "another API key than the first of R3MES_API_KEYS" in wrong.stderr
        assert service.status(DIGEST)["state"] == "downloading"

        key = {"R3MES_URL": service.url}
        paused = run_r3mes(service, "pause", "Tiny", **key)
        assert (paused.returncode, paused.stdout, paused.stderr) == (0, "Tiny: paused\n", "")
        assert service.status(DIGEST)["state"] == "paused"
        run_r3mes(service, "resume", **key).check_returncode()
        service.wait_for(DIGEST, "downloading")
        cancelled = run_r3mes(service, "cancel", "--json", DIGEST[:10], **key)
        (told,) = json.loads(cancelled.stdout)["models"]
        assert (told["state"], told["reason"]) == ("failed", "cancelled")
        run_r3mes(service, "retry", **key).check_returncode()
        service.wait_for(DIGEST, "downloading")

        with Pull(service, **key) as pull:
            pull.wait_for("Tiny: from Hugging Face")
            run_r3mes(service, "pause", **key).check_returncode()
            assert pull.wait() == 6
            assert "next: r3mes resume Tiny" in pull.stderr
        hold.release()


def test_without_a_stack_a_word_is_written_for_whoever_fetches_next(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts[PATH] = status(404)
    service = alone(home, origin)
    with service:
        service.wait_for(DIGEST, "failed")
    origin.scripts[PATH] = redirect("/cdn", linked(DATA))

    paused = run_r3mes(service, "pause")
    assert (paused.returncode, paused.stdout) == (0, "Tiny: paused\n")
    assert "no stack answers: written into the store" in paused.stderr
    with service:
        service.wait_for(DIGEST, "paused")
    resumed = run_r3mes(service, "resume", "-q")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    retried = run_r3mes(service, "retry", "-q")  # the failure's next attempt is not waited for
    assert (retried.returncode, retried.stderr) == (0, "")
    with service:
        service.wait_for(DIGEST, "verifying")

    container = run_r3mes(service, "pause", R3MES_STORE_KIND="container")
    assert container.returncode == 6
    assert "docker compose up --detach" in container.stderr
