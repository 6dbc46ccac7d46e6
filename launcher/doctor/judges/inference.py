"""What a miner computes with: llama-cpp-python's build, the GPU, memory, descriptors. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.filesize import decimal

from launcher.doctor.verdict import Verdict, failed, ok, skipped, warning
from shared.errors import ExitCode

# llama.cpp's name of a feature → the kernel's name in /proc/cpuinfo.
FLAGS = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
# Without one of these, where the processor has it, tokens come several times slower.
WORTH_HAVING = ("AVX2", "FMA", "F16C", "AVX512", "DOTPROD", "MATMUL_INT8")
_REBUILD = "build it on this machine: remove the kept wheel and .venv, then `make install`"
# Beside the weights: context, buffers, the process itself.
BESIDE_WEIGHTS = 512 * 1024**2
FEWEST_DESCRIPTORS = 1024


@dataclass(frozen=True, slots=True)
class LlamaFacts:
    """What importing llama-cpp-python showed. `died` is the signal's name, `error` the exception's words.

    `is_slow`: it had not ended in time.
    """

    is_installed: bool
    version: str = ""
    died: str = ""
    error: str = ""
    is_slow: bool = False
    features: frozenset[str] = frozenset()
    offload: bool = False
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """NVIDIA's GPUs by the driver; `has_device`: the kernel shows one, whatever the driver says."""

    driver: str = ""
    names: tuple[str, ...] = ()
    memory: tuple[int, ...] = ()
    has_device: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Bytes; `limit` is the cgroup's, None without one."""

    available: int
    total: int
    swap_total: int = 0
    swap_free: int = 0
    limit: int | None = None
    model: str = ""
    weights: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask of the GPU; `in_container`: this image has no miner."""

    gpu_layers: str = "auto"
    in_container: bool = False
    flags: frozenset[str] = field(default_factory=frozenset)


def judge_llama(found: LlamaFacts, wanted: Wanted) -> Verdict:
    """It must import here, use no more than this processor has, and not much less."""
    if trouble := _import_trouble(found, in_container=wanted.in_container):
        return trouble
    details: dict[str, Any] = {
        "version": found.version,
        "features": sorted(found.features),
        "offload": found.offload,
        "devices": list(found.devices),
    }
    lacking = sorted(
        name for name in found.features if name in FLAGS and wanted.flags and FLAGS[name] not in wanted.flags
    )
    if lacking:
        return failed(
            f"built for {', '.join(lacking)}, which this processor does not have", _REBUILD, ExitCode.FAILURE, **details
        )
    unused = [name for name in WORTH_HAVING if FLAGS[name] in wanted.flags and name not in found.features]
    if unused and not found.offload:
        return warning(f"built without {', '.join(unused)}, which this processor has: slow", _REBUILD, **details)
    where = "CPU and GPU" if found.offload else "CPU"
    return ok(f"{found.version} for {where}, {len(found.features)} features of this processor", **details)


def _import_trouble(found: LlamaFacts, *, in_container: bool) -> Verdict | None:
    if not found.is_installed and in_container:
        return skipped("not in this image; the miner's has its own: `docker compose logs miner`")
    if not found.is_installed:
        return warning("not installed: no miner runs on this host itself", "`make install`; containers bring their own")
    if found.died:
        return failed(f"importing it ends with {found.died}: built for another processor", _REBUILD, ExitCode.FAILURE)
    if found.is_slow:
        return warning("importing it had no end in time: this host is busy", "look again when less runs")
    if found.error:
        return failed(f"it cannot be imported: {found.error}", _REBUILD, ExitCode.FAILURE)
    return None


def judge_gpu(gpu: GpuFacts, llama: LlamaFacts, wanted: Wanted) -> Verdict:
    """A GPU that is there should be used, and one that is asked for must be there."""
    asked = wanted.gpu_layers not in {"auto", "0", ""}
    details: dict[str, Any] = {"driver": gpu.driver, "gpus": list(gpu.names), "memory_bytes": list(gpu.memory)}
    if gpu.names:
        named = ", ".join(f"{name} ({decimal(size)})" for name, size in zip(gpu.names, gpu.memory, strict=False))
        if llama.is_installed and not llama.offload and wanted.gpu_layers != "0":
            return warning(
                f"{named}, and llama-cpp-python is built without GPU offload: the model runs on the processor",
                "the container of compose.gpu.yml; or CMAKE_ARGS=-DGGML_CUDA=ON and a build on this machine",
                **details,
            )
        return ok(f"{named}, driver {gpu.driver}", **details)
    if wanted.in_container:
        return skipped("this container has no GPU of its own; run `r3mes doctor` on the host", **details)
    if gpu.has_device or gpu.error:
        return failed(
            f"there is an NVIDIA device, and its driver does not answer: {gpu.error or 'no nvidia-smi'}",
            "install the driver or load it anew (`nvidia-smi` must work); after an update restart the host",
            ExitCode.FAILURE,
            **details,
        )
    if asked:
        return failed(
            f"R3MES_N_GPU_LAYERS={wanted.gpu_layers}, and there is no NVIDIA GPU",
            "unset R3MES_N_GPU_LAYERS, or make the GPU visible here",
            ExitCode.CONFIGURATION,
            **details,
        )
    return ok("no NVIDIA GPU; models run on the processor", **details)


def judge_memory(found: MemoryFacts) -> Verdict:
    """The weights of the model that is served must fit beside what runs."""
    room = found.available if found.limit is None else min(found.available, found.limit)
    free = f"{decimal(room)} of {decimal(found.total)} available"
    if found.limit is not None and found.limit < found.total:
        free += f", a limit of {decimal(found.limit)} holds here"
    details: dict[str, Any] = {
        "available_bytes": found.available,
        "total_bytes": found.total,
        "swap_total_bytes": found.swap_total,
        "swap_free_bytes": found.swap_free,
        "limit_bytes": found.limit,
        "weights_bytes": found.weights,
    }
    if found.weights is not None and room < found.weights + BESIDE_WEIGHTS:
        needed = decimal(found.weights + BESIDE_WEIGHTS)
        return warning(
            f"{free}; {found.model} wants about {needed} (less where a GPU holds it)",
            "stop what else runs, raise R3MES_MINER_MEMORY, or pin a smaller quantisation",
            **details,
        )
    if found.swap_total and found.swap_free < found.swap_total // 2:
        return warning(
            f"{free}; more than half of the swap is in use", "stop what fills memory: it slows all", **details
        )
    return ok(free, **details)


def judge_descriptors(soft: int, hard: int) -> Verdict:
    """Each client, connection and file takes one."""
    if soft < FEWEST_DESCRIPTORS:
        return warning(
            f"at most {soft} open files (hard limit {hard})", f"ulimit -n {max(FEWEST_DESCRIPTORS, min(hard, 65536))}"
        )
    return ok(f"{soft} open files", soft=soft, hard=hard)


def parse_features(text: str) -> frozenset[str]:
    """Return the features that `llama_print_system_info` names: `CPU : SSE3 = 1 | AVX = 1 | …`."""
    parts: Sequence[str] = text.replace(":", "|").split("|")
    pairs = (part.partition("=") for part in parts)
    return frozenset(name.strip() for name, separator, value in pairs if separator and value.strip() == "1")
