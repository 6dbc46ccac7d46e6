"""Settings that cannot both be meant, or that do not do what they seem to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.doctor.judges.settings import Contradiction
from shared.genesis import ModelPin

# docker-compose.yml: stop_grace_period of miner and gateway, less the time that ending takes (seconds).
COMPOSE_DRAIN_SECONDS = 30.0
_LONGEST_DOWNLOAD_DAYS = 7
_DAY = 86_400


def find_contradictions(
    environ: Mapping[str, str], pins: Sequence[ModelPin], *, in_compose: bool
) -> tuple[Contradiction, ...]:
    """Return them all; values that a service refuses by itself are not among them."""
    found = (*_model(environ, pins), *_gpu(environ), *_doors(environ), *_speed(environ, pins))
    return (*found, *_drain(environ)) if in_compose else found


def _model(environ: Mapping[str, str], pins: Sequence[ModelPin]) -> Iterator[Contradiction]:
    wanted = environ.get("R3MES_MODEL", "")
    if wanted and pins and wanted not in {pin.model_name for pin in pins}:
        yield Contradiction(
            "R3MES_MODEL",
            f"R3MES_MODEL={wanted}, and the genesis pins {', '.join(pin.model_name for pin in pins[:5])}",
            "take one of those names, or accept a genesis with this one",
            is_fatal=True,
        )


def _gpu(environ: Mapping[str, str]) -> Iterator[Contradiction]:
    asked = environ.get("R3MES_N_GPU_LAYERS", "auto")
    if asked not in {"auto", "0"} and environ.get("CUDA_VISIBLE_DEVICES") in {"-1", "none"}:
        yield Contradiction(
            "R3MES_N_GPU_LAYERS",
            f"R3MES_N_GPU_LAYERS={asked}, and CUDA_VISIBLE_DEVICES hides every GPU",
            "unset one of them",
            is_fatal=True,
        )
    if environ.get("R3MES_ENGINE") == "torch" and "R3MES_KV_TYPE_K" in environ:
        yield Contradiction(
            "R3MES_KV_TYPE_K", "R3MES_KV_TYPE_K has no effect with R3MES_ENGINE=torch", "unset one of them"
        )


def _doors(environ: Mapping[str, str]) -> Iterator[Contradiction]:
    bind = environ.get("R3MES_BIND", "127.0.0.1")
    if environ.get("R3MES_ALLOW_OPEN") == "1" and bind.startswith("127."):
        yield Contradiction(
            "R3MES_ALLOW_OPEN", f"R3MES_ALLOW_OPEN=1 has no effect: ports are published on {bind}", "unset it"
        )
    if environ.get("R3MES_ALLOW_HTTP_SOURCES") == "1":
        yield Contradiction(
            "R3MES_ALLOW_HTTP_SOURCES",
            "R3MES_ALLOW_HTTP_SOURCES=1 lets every pinned source be asked in the clear and on private addresses",
            "name the hosts instead: host:port,…",
        )
    url = environ.get("R3MES_URL", "")
    if url and not url.strip().lower().startswith(("http://", "https://")):
        yield Contradiction(
            "R3MES_URL", f"R3MES_URL={url} is no http address", "for example http://127.0.0.1:8000", is_fatal=True
        )


def _speed(environ: Mapping[str, str], pins: Sequence[ModelPin]) -> Iterator[Contradiction]:
    limit = environ.get("R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND", "")
    largest = max((pin.size_bytes or pin.required_bytes for pin in pins), default=0)
    if limit.isdigit() and int(limit) and largest / int(limit) > _LONGEST_DOWNLOAD_DAYS * _DAY:
        days = largest / int(limit) / _DAY
        yield Contradiction(
            "R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND",
            f"at {limit} bytes a second the largest pinned model takes {days:.0f} days",
            "raise it: it counts bytes, not kilobytes",
        )


def _drain(environ: Mapping[str, str]) -> Iterator[Contradiction]:
    drain = environ.get("R3MES_DRAIN_SECONDS", "")
    if drain.replace(".", "", 1).isdigit() and float(drain) > COMPOSE_DRAIN_SECONDS:
        yield Contradiction(
            "R3MES_DRAIN_SECONDS",
            f"R3MES_DRAIN_SECONDS={drain}, and Docker kills a miner after 45 s",
            "raise stop_grace_period of the miner and the gateway as well, to R3MES_DRAIN_SECONDS + 15",
        )
