"""`r3mes demo` and its neighbours where no model needs to be loaded: refusals, the lock, the store read alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.demo.lock import demo_lock
from launcher.endpoints import DEFAULT_PORTS, Role, demo_directory, write_endpoints
from launcher.status import from_store
from shared.acceptance import load_init_settings, start_store
from shared.states import ModelState, Source
from shared.store.layout import StoreLayout
from shared.store.records import Control, Journal, Receipt, StatIdentity
from tests.support.demo import PROJECT, Demo
from tests.support.geneses import DIGEST, plain_form
from tests.support.origin_server import ScriptedOrigin
from tests.support.small_disk import fill, small_disk

BYTES = b"the model of the tests"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def home() -> Path:
    return Path(os.environ["HOME"])


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def no_stack(home: Path) -> None:
    """A command that looks for a stack finds none: on the usual ports there may be one of somebody else's."""
    directory = demo_directory(home / ".r3mes" / "models")
    directory.mkdir(parents=True)
    write_endpoints(directory, dict.fromkeys(DEFAULT_PORTS, NOBODY))


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreLayout:
    """A store whose genesis, with one tiny model, was accepted; no stack runs on it."""
    genesis = tmp_path / "genesis.json"
    genesis.write_bytes(plain_form())
    monkeypatch.setenv("R3MES_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("R3MES_GENESIS", str(genesis))
    settings, values = load_init_settings(os.environ, project=tmp_path)
    layout = start_store(settings, values).layout
    demo_directory(layout.root).mkdir()
    write_endpoints(demo_directory(layout.root), dict.fromkeys(DEFAULT_PORTS, NOBODY))
    return layout


def test_a_missing_genesis_is_refused_before_anything_is_written(home: Path) -> None:
    with Demo(home, "--once", R3MES_GENESIS=str(home / "none.json")) as demo:
        assert demo.wait() == 78
        assert str(home / "none.json") in demo.stderr
        assert not demo.store.exists()
        assert demo.left_behind() == []


def test_a_genesis_without_the_demo_s_model_is_told_so(home: Path) -> None:
    genesis = home / "other.json"
    genesis.write_bytes(plain_form())
    with Demo(home, "--once", R3MES_GENESIS=str(genesis)) as demo:
        assert demo.wait() == 78
        assert "pins Tiny" in demo.stderr


def test_a_file_in_the_place_of_the_store_is_refused_and_nothing_is_written_beside_it(home: Path) -> None:
    folder = home / "folder"
    folder.mkdir()
    (folder / "file").write_text("somebody's")
    with Demo(home, "--once", R3MES_MODELS_DIR=str(folder / "file")) as demo:
        assert demo.wait() == 78
        assert "is not a directory" in demo.stderr
        assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_disk_without_any_room_is_an_error_with_its_code(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        (disk / ".r3mes").mkdir()
        fill(disk / "ballast")
        with Demo(tmp_path, "--once", R3MES_MODELS_DIR=str(disk / ".r3mes" / "models")) as demo:
            assert demo.wait() == 5
            assert "no room to write" in demo.stderr
            assert "Traceback" not in demo.stderr
            assert demo.left_behind() == []


def test_a_misspelt_setting_is_refused(home: Path) -> None:
    with Demo(home, "--once", R3MES_MODELS_DRI="x") as demo:
        assert demo.wait() == 78
        assert "did you mean R3MES_MODELS_DIR" in demo.stderr


@pytest.mark.slow
def test_a_service_that_refuses_its_settings_ends_the_demo_with_its_words_and_code(home: Path) -> None:
    with Demo(home, "--once", R3MES_MAX_SEQUENCES="none") as demo:
        assert demo.wait() == 78
        assert "R3MES_MAX_SEQUENCES" in demo.stderr
        assert "the miner ended with exit code 78" in demo.stderr
        assert demo.left_behind() == []


def test_a_second_demo_on_the_same_store_is_refused(home: Path) -> None:
    with demo_lock(home / ".r3mes/demo/lock"), Demo(home, "--once") as demo:
        assert demo.wait() == 6
        assert f"process {os.getpid()}" in demo.stderr


def test_ask_without_a_stack_names_the_next_step() -> None:
    result = run("ask", "Anyone?", R3MES_URL="http://127.0.0.1:9")
    assert (result.returncode, result.stdout) == (6, "")
    assert "make demo" in result.stderr


def test_status_without_a_stack_at_the_address_given_is_not_read_from_the_store(layout: StoreLayout) -> None:
    assert layout.accepted.exists()
    assert run("status", R3MES_URL="http://127.0.0.1:9").returncode == 6


@pytest.mark.usefixtures("no_stack")
def test_status_without_a_store_is_a_configuration_error() -> None:
    result = run("status")
    assert (result.returncode, result.stdout) == (78, "")


def test_status_reads_the_store_where_no_stack_runs(layout: StoreLayout) -> None:
    result = run("status", "--json")
    document = json.loads(result.stdout)
    assert document["store"] == str(layout.root)
    assert [(model["model_name"], model["state"]) for model in document["models"]] == [("Tiny", "absent")]


@pytest.mark.parametrize("role", ["downloader", "miner"])
def test_a_stranger_on_a_usual_port_is_not_asked_twice(layout: StoreLayout, role: Role) -> None:
    with ScriptedOrigin() as stranger:  # answers 404 to everything
        nobody = dict.fromkeys(DEFAULT_PORTS, "http://127.0.0.1:9")
        write_endpoints(demo_directory(layout.root), nobody | {role: stranger.url})
        result = run("status", "--json")
        assert stranger.connections == 1
        document = json.loads(result.stdout)
        assert document["store"] == str(layout.root)
        assert "miner" not in document


def test_a_stranger_at_the_address_given_is_refused(layout: StoreLayout) -> None:
    assert layout.accepted.exists()
    with ScriptedOrigin() as stranger:
        refused = run("status", R3MES_URL=stranger.url)
        assert (refused.returncode, refused.stdout) == (2, "")


def test_a_download_in_the_store_is_told_by_its_durable_bytes(layout: StoreLayout) -> None:
    layout.incoming_dir(DIGEST).mkdir()
    journal(complete=False).write(layout.journal(DIGEST))
    (model,) = from_store(layout).models
    assert (model.state, model.received_bytes, model.expected_bytes) == (ModelState.DOWNLOADING, 5, len(BYTES))
    journal(complete=True).write(layout.journal(DIGEST))
    assert from_store(layout).models[0].state is ModelState.VERIFYING


def test_a_paused_download_in_the_store_is_told_as_paused(layout: StoreLayout) -> None:
    layout.incoming_dir(DIGEST).mkdir()
    Control(wish="paused").write(layout.control(DIGEST))
    assert from_store(layout).models[0].state is ModelState.PAUSED


def test_only_a_right_receipt_makes_a_model_verified(layout: StoreLayout) -> None:
    layout.verified_dir(DIGEST).mkdir()
    file = layout.verified_file(DIGEST, "tiny.gguf")
    file.write_bytes(BYTES)
    Receipt(
        sha256=DIGEST,
        size=len(BYTES),
        file_name="tiny.gguf",
        source=None,
        revision="main",
        verified_at=time.time(),
        verifier="local",
        genesis_sha256=DIGEST,
        st=StatIdentity.of(file.stat()),
    ).write(layout.receipt(DIGEST))
    assert from_store(layout).models[0].state is ModelState.VERIFIED
    file.write_bytes(BYTES)  # the same bytes, written anew: the receipt speaks of another state of the file
    assert from_store(layout).models[0].state is ModelState.ABSENT


def journal(*, complete: bool) -> Journal:
    size = len(BYTES)
    return Journal(
        sha256=DIGEST,
        size=size,
        generation="0" * 32,
        ino=1,
        instance="1" * 32,
        source=Source.HUGGINGFACE,
        url="https://huggingface.co/org/tiny/resolve/main/tiny.gguf",
        revision="main",
        prefix=size if complete else 5,
        ranges=((0, size if complete else 5),),
        complete=complete,
        updated_at=time.time(),
    )
