"""What makes .venv and the images: the parts of locks/install.py that decide, and the Makefile's look at Docker."""

import io
import os
import subprocess
from pathlib import Path

import pytest

from locks import install

REPOSITORY = Path(__file__).resolve().parents[2]
DEV = (REPOSITORY / "locks" / "dev.txt").read_text()


def test_the_compiled_package_is_parted_from_what_has_wheels() -> None:
    wheels, compiled = install.split_lock(DEV)
    assert compiled.startswith("llama-cpp-python==")
    assert compiled.count("==") == 1
    assert "\nllama-cpp-python==" not in wheels
    assert len(wheels) + len(compiled) == len(DEV)


def test_a_lock_without_it_compiles_nothing() -> None:
    lock = (REPOSITORY / "locks" / "verifier.txt").read_text()
    assert install.split_lock(lock) == (lock, "")


@pytest.mark.parametrize(
    ("entry", "cpu", "environment", "same"),
    [
        ("llama==1", "flags: avx2", {}, True),
        ("llama==1", "flags: avx2", {"HOME": "/elsewhere"}, True),
        ("llama==2", "flags: avx2", {}, False),
        ("llama==1", "flags: avx2 avx512f", {}, False),
        ("llama==1", "flags: avx2", {"CMAKE_ARGS": "-DGGML_NATIVE=OFF"}, False),
    ],
)
def test_a_kept_wheel_is_for_the_same_sources_options_and_cpu(
    entry: str, cpu: str, environment: dict[str, str], *, same: bool
) -> None:
    kept = install.wheel_key("llama==1", "flags: avx2", {})
    assert (install.wheel_key(entry, cpu, environment) == kept) is same


def test_a_callers_build_options_come_after_ours_and_so_win() -> None:
    assert install.build_environment({"CMAKE_ARGS": "-DLLAVA_BUILD=ON"})["CMAKE_ARGS"].split() == [
        "-DLLAVA_BUILD=OFF",
        "-DLLAVA_BUILD=ON",
    ]


def test_a_kept_wheel_is_taken_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    key = install.wheel_key("llama==1", install.this_cpu(), install.build_environment(os.environ))
    kept = tmp_path / "r3mes" / "wheels" / key / "llama.whl"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert install.compiled_wheel(Path("python"), "llama==1") == kept


def test_without_a_compiler_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="1"):
        install.compiled_wheel(Path("python"), "llama==1")
    assert "next: sudo apt-get install g++" in capsys.readouterr().err


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    lines = ["configuring\n", *(f"  [{n}/193] Building CXX object {n}\n" for n in range(1, 194))]
    install.show_progress(install.record(lines, log), begun=0.0)
    assert capsys.readouterr().err.count("of 193") == 1
    assert log.getvalue() == "".join(lines)


@pytest.mark.parametrize(
    ("engine", "compose", "says"),
    [
        ("26.0.0", "2.26.0", ""),
        ("26.1.5+dfsg1", "2.26.1-4", ""),
        ("28.2.2", "v2.39.1", ""),
        ("29.0.0", "5.0.0", ""),
        ("20.10.24+dfsg1", "2.26.1", "too old"),
        ("26.1.5", "2.20.3", "too old"),
        ("26.1.5", "1.29.2", "too old"),
        ("", "2.26.1", "no Docker Engine answers"),
        ("26.1.5", "", "no `docker compose`"),
    ],
)
def test_make_says_first_which_docker_it_needs(tmp_path: Path, engine: str, compose: str, says: str) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n"
        f'case "$1" in version) answer="{engine}" ;; *) answer="{compose}" ;; esac\n'
        '[ -n "$answer" ] && echo "$answer"\n'
    )
    docker.chmod(0o755)
    result = subprocess.run(
        ["make", "-s", "versions"],
        cwd=REPOSITORY,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) is (not says)
    assert says in result.stderr
    assert "next:" in result.stderr or not says
