"""What Docker says of itself; nothing is started."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from launcher.doctor.judges.containers import DockerFacts, judge_compose, judge_engine, judge_toolkit
from launcher.doctor.probes.inference import gpu_facts
from launcher.doctor.probes.together import together
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict, skipped
from launcher.programs import Said, ask_program, is_there

SECONDS = 4.0
_CDI = (Path("/etc/cdi/nvidia.yaml"), Path("/var/run/cdi/nvidia.yaml"))
_QUESTIONS = (
    ("docker", "version", "--format", "{{.Server.Version}}"),
    ("docker", "compose", "version", "--short"),
    ("docker", "info", "--format", "{{json .Runtimes}}"),
)


def check_engine(subject: Subject) -> list[Verdict]:
    """Ask for the Engine's version."""
    if _is_elsewhere(subject):
        return [skipped("--offline, and DOCKER_HOST is another host")]
    return [judge_engine(docker_facts(subject), in_container=subject.in_container)]


def check_compose(subject: Subject) -> list[Verdict]:
    """Ask for Compose's version."""
    if _is_elsewhere(subject):
        return [skipped("--offline, and DOCKER_HOST is another host")]
    return [judge_compose(docker_facts(subject), in_container=subject.in_container)]


def check_toolkit(subject: Subject) -> list[Verdict]:
    """See whether Docker could give a GPU to a container."""
    if _is_elsewhere(subject):
        return [skipped("--offline, and DOCKER_HOST is another host")]
    has_gpu = bool(gpu_facts(subject).names)
    return [judge_toolkit(docker_facts(subject), has_gpu=has_gpu, in_container=subject.in_container)]


def docker_facts(subject: Subject) -> DockerFacts:
    """Return what Docker said, once for all checks."""
    return subject.shelf.once("docker", _ask)


def _ask() -> DockerFacts:
    if not is_there("docker"):
        return DockerFacts(is_installed=False)
    engine, compose, info = together([partial(ask_program, argv, seconds=SECONDS) for argv in _QUESTIONS])
    return DockerFacts(
        is_installed=True,
        engine=engine.stdout.strip() if engine.works else "",
        compose=compose.stdout.strip() if compose.works else "",
        error="" if engine.works else engine.trouble,
        runtimes=_runtimes(info),
        has_toolkit=is_there("nvidia-ctk") or is_there("nvidia-container-runtime"),
        has_cdi_gpu=any(path.exists() for path in _CDI),
    )


def _runtimes(said: Said) -> tuple[str, ...]:
    try:
        found = json.loads(said.stdout) if said.works else {}
    except ValueError:
        return ()
    return tuple(sorted(found)) if isinstance(found, dict) else ()


def _is_elsewhere(subject: Subject) -> bool:
    host = subject.environ.get("DOCKER_HOST", "")
    return subject.offline and bool(host) and not host.startswith("unix:")
