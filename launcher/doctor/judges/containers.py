"""Docker Engine, Compose, and NVIDIA's toolkit. Pure. None of them is needed without containers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from launcher.doctor.verdict import Verdict, ok, skipped, warning

OLDEST_ENGINE = (26, 0)
OLDEST_COMPOSE = (2, 26)
_OWN_PACKAGES = "install Docker's own packages (Debian 12's are too old): docs.docker.com/engine/install"


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """What `docker` says; empty versions where it says nothing, `error` why."""

    is_installed: bool
    engine: str = ""
    compose: str = ""
    error: str = ""
    runtimes: tuple[str, ...] = ()
    has_toolkit: bool = False
    has_cdi_gpu: bool = False


def judge_engine(found: DockerFacts, *, in_container: bool) -> Verdict:
    """Subpath mounts need Engine 26."""
    if absent := _absent(found, in_container=in_container):
        return absent
    if not found.engine:
        return warning(
            f"no Docker Engine answers: {found.error or 'it says nothing'}",
            "start it, and let this user in (group docker); not needed without containers",
        )
    if _parsed(found.engine) < OLDEST_ENGINE:
        return warning(f"Engine {found.engine} is too old: subpath mounts need 26", _OWN_PACKAGES, version=found.engine)
    return ok(f"Engine {found.engine}", version=found.engine)


def judge_compose(found: DockerFacts, *, in_container: bool) -> Verdict:
    """Subpath mounts need Compose 2.26."""
    if absent := _absent(found, in_container=in_container):
        return absent
    if not found.compose:
        return warning("there is no `docker compose`", "install the Compose plugin, 2.26 or newer")
    if _parsed(found.compose) < OLDEST_COMPOSE:
        return warning(
            f"Compose {found.compose} is too old: subpath mounts need 2.26", _OWN_PACKAGES, version=found.compose
        )
    return ok(f"Compose {found.compose}", version=found.compose)


def judge_toolkit(found: DockerFacts, *, has_gpu: bool, in_container: bool) -> Verdict:
    """A container sees a GPU only through NVIDIA's toolkit."""
    if absent := _absent(found, in_container=in_container):
        return absent
    details: dict[str, Any] = {"runtimes": list(found.runtimes), "toolkit": found.has_toolkit}
    if not has_gpu:
        return skipped("no NVIDIA GPU here", **details)
    if "nvidia" in found.runtimes or found.has_cdi_gpu:
        return ok("Docker gives GPUs to containers", **details)
    if found.has_toolkit:
        return warning(
            "the toolkit is installed, and Docker does not know it",
            "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
            **details,
        )
    return warning(
        "not installed: containers do not see the GPU",
        "install nvidia-container-toolkit, then nvidia-ctk runtime configure --runtime=docker",
        **details,
    )


def _absent(found: DockerFacts, *, in_container: bool) -> Verdict | None:
    if in_container:
        return skipped("a container does not see Docker; run `r3mes doctor` on the host")
    return None if found.is_installed else skipped("no Docker here; only the stack in containers needs it")


def _parsed(version: str) -> tuple[int, int]:
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
