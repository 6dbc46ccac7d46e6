"""What this machine offers to a model: processors, memory, GPUs. Reads, decides nothing (`hardware.py` does)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pynvml
from llama_cpp import llama_cpp

TORCH_PACKAGES = ("torch", "transformers", "gguf", "accelerate")  # of the extra `torch`
CGROUP_ROOT = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")


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

    `quota` is the cgroup's processor quota in whole and part processors, None without one. `torch_lacks` are the
    packages of the PyTorch fallback that are not installed.
    """

    processors: int
    quota: float | None
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    offload_supported: bool
    torch_lacks: tuple[str, ...] = ()


def probe_machine() -> Machine:
    """Look at this machine and at the cgroup of this process."""
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        quota=_processor_quota(),
        memory_bytes=_available_memory(),
        gpus=visible_gpus(tuple(find_gpus()), os.environ.get("CUDA_VISIBLE_DEVICES")),
        offload_supported=bool(llama_cpp.llama_supports_gpu_offload()),
        torch_lacks=tuple(name for name in TORCH_PACKAGES if find_spec(name) is None),
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
    for directory, version in _cgroups("memory"):
        limit, used = (_read(directory / name) for name in version.memory)
        if limit.isdigit() and used.isdigit():
            reclaimable = re.search(version.reclaimable, _read(directory / "memory.stat"), re.MULTILINE)
            room = int(limit) - int(used) + (int(reclaimable[1]) if reclaimable else 0)
            available = min(available, max(room, 0))
    return available


def _processor_quota() -> float | None:
    quotas = []
    for directory, version in _cgroups("cpu"):
        quota, _, period = " ".join(_read(directory / name) for name in version.processor).partition(" ")
        if quota.isdigit() and period.isdigit():  # without a quota: `max`, or -1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


@dataclass(frozen=True, slots=True)
class _Version:
    """Where one version of cgroups keeps a limit and what is used, a quota and its period, and what it calls them."""

    memory: tuple[str, str]
    reclaimable: str
    processor: tuple[str, ...]


_UNIFIED = _Version(("memory.max", "memory.current"), r"^inactive_file (\d+)$", ("cpu.max",))
_FIRST = _Version(
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    r"^total_inactive_file (\d+)$",
    ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
)


def _cgroups(controller: str) -> Iterator[tuple[Path, _Version]]:
    """Yield this process's cgroup and its parents, of both versions; in a container that may be the root alone."""
    own = _read(PROCESS_CGROUPS)
    for pattern, root, version in (
        (r"^0::/(.*)$", CGROUP_ROOT, _UNIFIED),
        (rf"^\d+:(?:\S+,)?{controller}(?:,\S+)?:/(.*)$", CGROUP_ROOT / controller, _FIRST),
    ):
        match = re.search(pattern, own, re.MULTILINE)
        directory = root / (match[1] if match else "")
        while directory.is_relative_to(root):
            yield directory, version
            directory = directory.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
