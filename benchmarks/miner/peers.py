"""What we are compared with: built and installed once, outside the repository, from what our locks pin.

llama-server and llama-batched-bench are compiled from the `vendor/llama.cpp` of the source distribution whose compiled
wheel our own engine runs on: both sides have the same kernels.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from locks import install

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r3mes"
BIN = Path(sys.executable).parent
DIGEST_CHARACTERS = 12
TARGETS = ("llama-server", "llama-batched-bench")
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # so that what was built can be moved
)


@dataclass(frozen=True, slots=True)
class Pinned:
    """llama-cpp-python as our development lock pins it."""

    entry: str
    version: str
    digest: str

    @property
    def home(self) -> Path:
        """Where the programs that are built from it are kept."""
        return CACHE / f"llama.cpp-{self.version}-{self.digest[:DIGEST_CHARACTERS]}"


def pinned() -> Pinned:
    """Read the lock."""
    _, entry = install.split_lock((install.LOCKS / "dev.txt").read_text())
    found = re.search(r"==(\S+).*?sha256:([0-9a-f]{64})", entry, re.DOTALL)
    if found is None:
        raise ValueError("locks/dev.txt pins no llama-cpp-python")
    return Pinned(entry, found[1], found[2])


def llama_cpp_programs() -> Path:
    """Return the directory of llama-server and llama-batched-bench; compile them if they are not there."""
    wanted = pinned()
    target = wanted.home / "bin"
    if all((target / name).exists() for name in TARGETS):
        return target
    wanted.home.mkdir(parents=True, exist_ok=True)
    said = wanted.home / "build.log"
    print(f"compiling {' and '.join(TARGETS)}: about eight minutes on two cores, once (log: {said})", flush=True)
    with tempfile.TemporaryDirectory(prefix="r3mes-bench-") as scratch, said.open("w") as log:
        source = _source(wanted, Path(scratch))
        build = Path(scratch) / "build"
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"  # cmake and ninja of our locks
        commands: tuple[list[str | Path], ...] = (
            ["cmake", "-S", source, "-B", build, "-G", "Ninja", *FLAGS],
            ["cmake", "--build", build, "--target", *TARGETS],
        )
        for command in commands:
            subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "PATH": path})
        partial = target.with_name("bin.new")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(build / "bin", partial, symlinks=True)
        partial.rename(target)
    return target


def _source(wanted: Pinned, scratch: Path) -> Path:
    """Download the source distribution, held against its hash, and unpack it; return llama.cpp's folder in it."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(wanted.entry)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps",
         "--no-build-isolation", "--require-hashes", "--dest", scratch, "--requirement", requirements],
        check=True, cwd=scratch,
    )  # fmt: skip
    with tarfile.open(next(scratch.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return next(scratch.glob("llama_cpp_python-*/vendor/llama.cpp"))


def llama_cpp_server() -> Path:
    """Return the interpreter of an environment with llama_cpp.server and our own compiled wheel; make it once."""
    wanted = pinned()
    home = CACHE / f"llama_cpp.server-{wanted.version}-{wanted.digest[:DIGEST_CHARACTERS]}"
    python = home / "bin" / "python"
    ready = home / "ready"
    lock = (install.LOCKS / "bench-miner.txt").read_text()
    if ready.exists() and ready.read_text() == lock:
        return python
    print(f"installing llama_cpp.server in {home}", flush=True)
    venv.create(home, clear=True)
    # The wheel is the one that our engine runs on, not one compiled anew: its key is of the entry in dev.txt.
    wheel = install.compiled_wheel(Path(sys.executable), wanted.entry)
    with tempfile.TemporaryDirectory(prefix="r3mes-bench-") as scratch:
        requirements = Path(scratch) / "bench-miner.txt"
        requirements.write_text(install.split_lock(lock)[0])
        install.install(Path(sys.executable), python, "packages", "--require-hashes", "-r", requirements)
    install.install(Path(sys.executable), python, wheel.name, wheel)
    ready.write_text(lock)
    return python
