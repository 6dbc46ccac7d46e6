"""What this machine offers to a model: processors, memory, GPUs. Reads, decides nothing (`hardware.py` does)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml
from llama_cpp import llama_cpp

CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU; memory in bytes, `uuid` as the driver writes it (`GPU-…`)."""

    name: str
    free_bytes: int
    total_bytes: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Processors that this process may use, memory that it may still take (bytes), GPUs, and llama.cpp's abilities.

    `quota` is the cgroup's processor quota in whole and part processors, None without one.
    """

    processors: int
    quota: float | None
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    offload_supported: bool


def probe_machine() -> Machine:
    """Look at this machine and at the cgroup of this process."""
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        quota=_processor_quota(),
        memory_bytes=_available_memory(),
        gpus=visible_gpus(tuple(find_gpus()), os.environ.get("CUDA_VISIBLE_DEVICES")),
        offload_supported=bool(llama_cpp.llama_supports_gpu_offload()),
    )


def find_gpus() -> Iterator[Gpu]:
    """Yield the GPUs that NVIDIA's driver shows; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
            yield Gpu(_text(name), int(memory.free), int(memory.total), _text(uuid))
    except pynvml.NVMLError:
        return
    finally:
        pynvml.nvmlShutdown()


def visible_gpus(gpus: Sequence[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Return those of `gpus` that CUDA uses by `CUDA_VISIBLE_DEVICES`, which the driver does not heed.

    As CUDA reads it: numbers or beginnings of UUIDs, in that order, up to the first that names no device.
    """
    if setting is None:
        return tuple(gpus)
    used: list[Gpu] = []
    for name in (part.strip() for part in setting.split(",")):
        if name.isdecimal():
            found = list(gpus[int(name) : int(name) + 1])
        else:
            found = [gpu for gpu in gpus if name.startswith("GPU-") and gpu.uuid.startswith(name)]
        if len(found) != 1:
            break
        used += found
    return tuple(used)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _available_memory() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE)
    available = int(match[1]) * 1024 if match else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for directory in _cgroups():
        limit, used = _read(directory / "memory.max"), _read(directory / "memory.current")
        if limit.isdigit() and used.isdigit():
            reclaimable = re.search(r"^inactive_file (\d+)$", _read(directory / "memory.stat"), re.MULTILINE)
            room = int(limit) - int(used) + (int(reclaimable[1]) if reclaimable else 0)
            available = min(available, max(room, 0))
    return available


def _processor_quota() -> float | None:
    quotas = []
    for directory in _cgroups():
        quota, _, period = _read(directory / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroups() -> Iterator[Path]:
    """Yield this process's cgroup (version 2) and its parents; in a container that is the root alone."""
    match = re.search(r"^0::/(.*)$", _read(Path("/proc/self/cgroup")), re.MULTILINE)
    directory = CGROUP_ROOT / (match[1] if match else "")
    while directory.is_relative_to(CGROUP_ROOT):
        yield directory
        directory = directory.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
