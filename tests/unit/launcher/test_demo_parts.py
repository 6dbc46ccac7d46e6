"""The small parts of the demo: places, ports, environment, lock, log lines, records, display."""

import io
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from launcher import endpoints
from launcher.demo.environment import Wiring, common_environment, service_environment
from launcher.demo.lock import demo_lock
from launcher.demo.logs import last_words, readable
from launcher.demo.places import demo_places, find_genesis, find_model_file
from launcher.demo.rejections import Rejections
from launcher.display import PlainDisplay, TerminalDisplay, describe_progress, short_path
from launcher.endpoints import ClientSettings, Role, base_url, demo_directory, write_endpoints
from shared.errors import NotReadyError
from shared.settings import load_settings
from shared.store.layout import StoreLayout
from shared.store.records import RejectedRecord

DIGEST = "ab" * 32


def wiring(tmp_path: Path, *, tamper: bool = False, genesis: Path | None = None) -> Wiring:
    return Wiring(
        models=tmp_path / "models",
        genesis=genesis,
        origin_url="http://127.0.0.1:9",
        ports={"miner": 1, "downloader": 2, "verifier": 3},
        redis_url_file=tmp_path / "redis.url",
        tamper=tamper,
    )


def test_the_tampered_store_is_never_the_honest_one(tmp_path: Path) -> None:
    honest, tampered = (demo_places(tmp_path / "models", tamper=tamper) for tamper in (False, True))
    assert honest.models == tmp_path / "models"
    assert tampered.models == tmp_path / "demo-tampered" / "models"
    assert not {honest.directory, honest.models} & {tampered.directory, tampered.models}


def test_the_genesis_is_the_one_set_else_the_working_directory_s_else_the_project_s(tmp_path: Path) -> None:
    here, project = tmp_path / "here", tmp_path / "project"
    for directory in (here, project):
        (directory / "genesis").mkdir(parents=True)
    assert find_genesis({}, here, project) is None
    (project / "genesis/genesis.json").touch()
    assert find_genesis({}, here, project) == project / "genesis/genesis.json"
    (here / "genesis/genesis.json").touch()
    assert find_genesis({}, here, project) == here / "genesis/genesis.json"
    assert find_genesis({"R3MES_GENESIS": "my.json"}, here, project) == here / "my.json"


def test_a_missing_model_package_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.demo.places.MODEL_PACKAGE", "no_such_package_at_all")
    with pytest.raises(NotReadyError) as caught:
        find_model_file()
    assert "`make`" in caught.value.next_step


def test_nothing_of_the_services_leaves_the_machine(tmp_path: Path) -> None:
    user = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy:1",
        "http_proxy": "http://proxy:1",
        "HF_TOKEN": "secret",
        "R3MES_REDIS_URL": "redis://elsewhere",
        "R3MES_N_CTX": "512",
    }
    environment = common_environment(user, wiring(tmp_path))
    assert environment["HF_ENDPOINT"] == environment["R3MES_IPFS_GATEWAYS"] == "http://127.0.0.1:9"
    assert environment["R3MES_N_CTX"] == "512"
    assert environment["PATH"] == "/bin"
    assert not {"HTTPS_PROXY", "http_proxy", "HF_TOKEN", "R3MES_REDIS_URL", "R3MES_GENESIS"} & set(environment)


def test_the_tampered_demo_imports_nothing(tmp_path: Path) -> None:
    user = {"R3MES_IMPORT_DIR": "/honest/files"}
    assert "R3MES_IMPORT_DIR" in common_environment(user, wiring(tmp_path))
    assert "R3MES_IMPORT_DIR" not in common_environment(user, wiring(tmp_path, tamper=True))


def test_each_service_listens_on_its_own_port(tmp_path: Path) -> None:
    plan = wiring(tmp_path, genesis=tmp_path / "g.json")
    common = common_environment({}, plan)
    assert service_environment(common, plan, "verifier", "Tiny")["R3MES_LISTEN"] == "127.0.0.1:3"
    miner = service_environment(common, plan, "miner", "Tiny")
    assert (miner["R3MES_LISTEN"], miner["R3MES_MODEL"]) == ("127.0.0.1:1", "Tiny")
    assert miner["R3MES_GENESIS"] == str(tmp_path / "g.json")


def test_a_second_demo_on_a_store_is_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "lock"
    with demo_lock(path), pytest.raises(NotReadyError, match=f"process {os.getpid()}"), demo_lock(path):
        pass
    with demo_lock(path):  # and once the first is gone, the way is free
        pass


def test_a_killed_demo_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import signal, sys\nfrom pathlib import Path\nfrom launcher.demo.lock import demo_lock\n"
        f"with demo_lock(Path({str(path)!r})):\n    print('held', flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NotReadyError), demo_lock(path):
            pass
        holder.kill()
    with demo_lock(path):
        pass


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event": "no room", "level": "error", "timestamp": "t", "missing": 5}', "error: no room missing=5"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ('{"no": "event"}', '{"no": "event"}'),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_a_log_line_is_shown_without_what_only_machines_need(line: str, expected: str) -> None:
    assert readable(line) == expected


def test_the_last_words_are_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert last_words(log).splitlines()[-1] == "  | line 99"
    assert len(last_words(log).splitlines()) == 12
    assert "no log" in last_words(tmp_path / "none")


def test_only_records_that_came_since_count(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    layout.rejected.mkdir()

    def write(number: int) -> None:
        RejectedRecord(
            sha256=DIGEST,
            found="cd" * 32,
            size=5,
            reason="mismatch",
            generation="0" * 32,
            source=None,
            revision="main",
            genesis_sha256=DIGEST,
            rejected_at=time.time(),
        ).write(layout.rejected_file(DIGEST, number))

    write(1)
    rejections = Rejections(layout, DIGEST)
    assert rejections.new() == []
    write(2)
    assert [record.found for record in rejections.new()] == ["cd" * 32]
    assert rejections.new() == []


def test_plain_progress_is_a_line_a_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    for done in range(0, 1_000_001, 10_000):
        display.progress("download", done, 1_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("(")[2] for line in lines] == ["0 %)", "25 %)", "50 %)", "75 %)", "100 %)"]
    assert lines[1] == "download: 250.0 kB of 1.0 MB (25 %)"


@pytest.mark.parametrize(("width", "shown"), [(120, "━"), (64, "MB"), (40, "33.0/98.4 MB"), (20, "34")])
def test_a_bar_stays_on_one_line_however_narrow_the_terminal(width: int, shown: str) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = TerminalDisplay(console)._bars()
    for stage in ("download, try 2", "verify"):
        bars.update(bars.add_task(stage, total=98_362_432), completed=33_000_000)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    lines = captured.get().splitlines()
    assert len(lines) == 2
    assert shown in lines[0]


def test_progress_without_a_total_says_what_is_known() -> None:
    assert describe_progress("download", 2_000_000, None) == "download: 2.0 MB"


def test_a_path_below_the_home_directory_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert short_path("/home/somebody/.r3mes") == "~/.r3mes"
    assert short_path("/home/somebodyelse/x") == "/home/somebodyelse/x"


def test_a_command_finds_the_stack_by_setting_then_demo_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R3MES_MODELS_DIR", str(tmp_path / "models"))
    settings = load_settings(ClientSettings)
    assert base_url(settings, "miner") == "http://127.0.0.1:8080"
    assert base_url(settings, "downloader") == "http://127.0.0.1:8081"
    directory = demo_directory(settings.store_root)
    directory.mkdir()
    urls = {"miner": "http://127.0.0.1:5", "downloader": "http://127.0.0.1:6", "verifier": "http://127.0.0.1:7"}
    write_endpoints(directory, urls)
    assert base_url(settings, "downloader") == "http://127.0.0.1:6"
    monkeypatch.setenv("R3MES_URL", "http://gateway:8000/")
    assert base_url(load_settings(ClientSettings), "downloader") == "http://gateway:8000"


@pytest.mark.parametrize(
    ("listening", "role", "found"),
    [
        ({"service", "gateway"}, "downloader", "service"),
        ({"gateway"}, "downloader", "gateway"),
        ({"gateway"}, "miner", "gateway"),
        ({"gateway"}, "verifier", "service"),
        (set(), "miner", "service"),
    ],
)
def test_a_stack_in_containers_is_found_at_its_gateway_where_no_service_has_its_own_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: set[str], role: Role, found: str
) -> None:
    monkeypatch.setenv("R3MES_MODELS_DIR", str(tmp_path / "models"))
    with ExitStack() as open_ports:
        ports = {}
        for name in ("service", "gateway"):
            listener = open_ports.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports[name] = listener.getsockname()[1]
            if name not in listening:
                listener.close()
        monkeypatch.setattr(endpoints, "DEFAULT_PORTS", dict.fromkeys(endpoints.DEFAULT_PORTS, ports["service"]))
        monkeypatch.setattr(endpoints, "GATEWAY_PORT", ports["gateway"])
        assert base_url(load_settings(ClientSettings), role) == f"http://127.0.0.1:{ports[found]}"
