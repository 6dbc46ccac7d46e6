"""What a miner would compute with, and in how much memory."""

from __future__ import annotations

import importlib
import json
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.doctor.judges.inference import (
    GpuFacts,
    LlamaFacts,
    MemoryFacts,
    Wanted,
    judge_descriptors,
    judge_gpu,
    judge_llama,
    judge_memory,
    parse_features,
)
from launcher.doctor.probes import llama_child
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict
from launcher.programs import ask_program, is_there
from shared.store.verified import open_verified

LLAMA_SECONDS = 20.0
GPU_SECONDS = 4.0
_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_CGROUP, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_DEVICE, _PCI = Path("/dev/nvidia0"), Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
_MIB = 1024**2


def check_llama(subject: Subject) -> list[Verdict]:
    """Import llama-cpp-python in a process of its own and compare its build with this processor."""
    return [judge_llama(llama_facts(subject), _wanted(subject))]


def check_gpu(subject: Subject) -> list[Verdict]:
    """Ask NVIDIA's driver, and see whether the build could use what it shows."""
    gpu = gpu_facts(subject)
    llama = llama_facts(subject) if gpu.names else LlamaFacts(is_installed=False)
    return [judge_gpu(gpu, llama, _wanted(subject))]


def check_memory(subject: Subject) -> list[Verdict]:
    """Compare memory with the weights of the model that a miner would serve."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read(_MEMINFO), re.MULTILINE))
    size = {name: int(lines.get(name, 0)) * 1024 for name in ("MemAvailable", "MemTotal", "SwapTotal", "SwapFree")}
    model, weights = _weights(subject)
    facts = MemoryFacts(
        available=size["MemAvailable"],
        total=size["MemTotal"],
        swap_total=size["SwapTotal"],
        swap_free=size["SwapFree"],
        limit=min(_limits(), default=None),
        model=model,
        weights=None if subject.in_container else weights,
    )
    return [judge_memory(facts)]


def check_descriptors(_subject: Subject) -> list[Verdict]:
    """Look at the limit that a service started from here would have."""
    return [judge_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))]


def llama_facts(subject: Subject) -> LlamaFacts:
    """Return what the child found, once for all checks."""
    return subject.shelf.once("llama", _ask_llama)


def gpu_facts(subject: Subject) -> GpuFacts:
    """Return what the driver shows, once for all checks."""
    return subject.shelf.once("gpu", _ask_driver)


def processor_flags() -> frozenset[str]:
    """Return what the kernel says this processor can do; empty where it does not say."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(_CPUINFO), re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def _ask_llama() -> LlamaFacts:
    said = ask_program([sys.executable, "-P", llama_child.__file__], seconds=LLAMA_SECONDS - 1)
    if said.returncode is None:
        return LlamaFacts(is_installed=True, is_slow=True)
    if said.died:
        return LlamaFacts(is_installed=True, died=said.died)
    try:
        found: dict[str, Any] = json.loads(said.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return LlamaFacts(is_installed=True, error=said.trouble)
    return LlamaFacts(
        is_installed=bool(found["is_installed"]),
        version=found.get("version", ""),
        error=found.get("error", ""),
        features=parse_features(found.get("system", "")),
        offload=bool(found.get("offload")),
        devices=tuple(found.get("devices", ())),
    )


def _ask_driver() -> GpuFacts:
    has_device = _DEVICE.exists() or any(_is_nvidia(path) for path in _devices())
    if is_there("nvidia-smi"):
        said = ask_program(_QUERY, seconds=GPU_SECONDS)
        rows = [[part.strip() for part in line.split(",")] for line in said.stdout.splitlines()] if said.works else []
        whole = [row for row in rows if len(row) == 3 and row[1].isdigit()]  # noqa: PLR2004  the three of the query
        if whole:
            names, memory = tuple(row[0] for row in whole), tuple(int(row[1]) * _MIB for row in whole)
            return GpuFacts(whole[0][2], names, memory, has_device=True)
        return GpuFacts(has_device=has_device, error=said.trouble)
    return _ask_library(has_device=has_device)


def _ask_library(*, has_device: bool) -> GpuFacts:
    """Ask the driver by NVIDIA's own Python package, where a miner is installed."""
    with suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
            names = tuple(_text(nvml.nvmlDeviceGetName(handle)) for handle in handles)
            memory = tuple(int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles)
            return GpuFacts(_text(nvml.nvmlSystemGetDriverVersion()), names, memory, has_device=bool(names))
        except nvml.NVMLError as error:
            return GpuFacts(has_device=has_device, error=str(error) if has_device else "")
    return GpuFacts(has_device=has_device)


def _devices() -> Iterator[Path]:
    with suppress(OSError):
        yield from _PCI.iterdir()


def _is_nvidia(device: Path) -> bool:
    return _read(device / "vendor").strip() == _NVIDIA and _read(device / "class").startswith(_DISPLAY)


def _weights(subject: Subject) -> tuple[str, int | None]:
    wanted = subject.environ.get("R3MES_MODEL")
    pin = next((pin for pin in subject.pins if wanted in {None, pin.model_name}), None)
    if pin is None:
        return "", None
    with open_verified(subject.layout, pin.sha256, pin.file_name) as verified:
        size = verified.status.st_size if verified else pin.size_bytes or pin.required_bytes
    return pin.model_name, size


def _limits() -> list[int]:
    """Return the memory limits of this process's control group and of those above it."""
    match = re.search(r"^0::/(.*)$", _read(_OWN_CGROUP), re.MULTILINE)
    directory = _CGROUP / (match[1] if match else "")
    texts = [_read(_CGROUP / "memory" / "memory.limit_in_bytes")]
    while directory.is_relative_to(_CGROUP):
        texts.append(_read(directory / "memory.max"))
        directory = directory.parent
    return [int(text) for text in map(str.strip, texts) if text.isdigit() and int(text) < 2**60]


def _wanted(subject: Subject) -> Wanted:
    layers = subject.environ.get("R3MES_N_GPU_LAYERS", "auto")
    return Wanted(layers, subject.in_container, processor_flags())


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
