"""What a miner says of itself, for `r3mes status`: which model, by what, where, why it was decided so, and its load."""

from __future__ import annotations

import re
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, ValidationError

from launcher.endpoints import ClientSettings, base_url, session

ANSWER_SECONDS = 5.0


class MinerReport(BaseModel):
    """A miner as the downloader's status tells of it, or as it answered by itself.

    `running` and `waiting` count requests, None where that is not known.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    url: str
    ready: bool
    reason: str = ""
    models: list[dict[str, Any]] = []
    running: int | None = None
    waiting: int | None = None


class _Hardware(BaseModel):
    model_config = ConfigDict(extra="ignore")
    gpu_layers: int
    gpu_offload_active: bool
    threads: int
    why: list[str]


class _Served(BaseModel):
    model_config = ConfigDict(extra="ignore")
    engine: str
    engine_reason: str = ""
    context_tokens: int
    loaded: bool
    hardware: _Hardware


class _Readiness(BaseModel):
    model_config = ConfigDict(extra="ignore")
    ready: bool
    reason: str


def ask_miner(settings: ClientSettings) -> dict[str, Any] | None:
    """Return what `/readyz`, `/v1/models` and `/metrics` say, with the URL; None where no miner answers."""
    url = base_url(settings, "miner")
    try:
        with session(settings.api_key) as client:
            readiness = _Readiness.model_validate_json(client.get(f"{url}/readyz", timeout=ANSWER_SECONDS).content)
            listed = client.get(f"{url}/v1/models", timeout=ANSWER_SECONDS).json().get("data", [])
            metrics = client.get(f"{url}/metrics", timeout=ANSWER_SECONDS).text
    except (requests.RequestException, ValidationError, ValueError, AttributeError):
        return None  # nobody, or somebody else
    load = {name: read_gauge(metrics, f"r3mes_miner_requests_{name}") for name in ("running", "waiting")}
    return {"url": url, "ready": readiness.ready, "reason": readiness.reason, "models": listed, **load}


def read_gauge(metrics: str, name: str) -> int | None:
    """Return a gauge without labels from Prometheus's text, None where it is not in there."""
    match = re.search(rf"^{name} ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(float(match[1])) if match else None


def describe_miner(miner: MinerReport) -> list[str]:
    """Say in a few lines what a miner serves, and how."""
    return [f"miner at {miner.url}: {describe_readiness(miner)}", *(f"  {line}" for line in describe_models(miner))]


def describe_readiness(miner: MinerReport) -> str:
    """Say in a few words whether it is ready, and how busy it is."""
    words = "ready" if miner.ready else "not ready"
    if miner.reason:
        words += f" ({miner.reason})"
    load = [
        f"{count} {word}"
        for count, word in ((miner.running, "running"), (miner.waiting, "waiting"))
        if count is not None
    ]
    return ", ".join([words, *load])


def describe_models(miner: MinerReport) -> list[str]:
    """Say of each model by what engine it is served, where, and why so."""
    lines = []
    for model in miner.models:
        try:
            served = _Served.model_validate(model["r3mes"])
            lines.append(f"{model['id']} {_how(served)}")
        except (ValidationError, LookupError, TypeError):
            continue  # not one of ours
        if served.engine_reason:
            lines.append(f"not by llama.cpp: {served.engine_reason}")
        lines.append(f"why: {'; '.join(served.hardware.why)}")
    return lines


def _how(served: _Served) -> str:
    hardware = served.hardware
    layers = "all layers" if hardware.gpu_layers < 0 else f"{hardware.gpu_layers} layers"
    place = f"with {layers} on the GPU" if hardware.gpu_offload_active else "on the processor"
    unloaded = "" if served.loaded else ", unloaded until it is asked for"
    threads = "1 thread" if hardware.threads == 1 else f"{hardware.threads} threads"
    return f"by {served.engine} {place}, {threads}, {served.context_tokens} tokens of context{unloaded}"
