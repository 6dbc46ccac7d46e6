"""What `r3mes status` says of a miner."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.miner_status import MinerReport, describe_miner, read_gauge

HARDWARE = {
    "gpu_layers": 0,
    "gpu_offload_active": False,
    "cells": 9,
    "threads": 2,
    "why": ["2 threads as set", "no GPU"],
}


def found(ready: bool = True, reason: str = "", **changes: object) -> dict[str, Any]:
    served = {"engine": "llama.cpp", "context_tokens": 8192, "loaded": True, "hardware": HARDWARE, **changes}
    return {"url": "http://host", "ready": ready, "reason": reason, "models": [{"id": "Small", "r3mes": served}]}


def lines(document: dict[str, Any]) -> list[str]:
    return describe_miner(MinerReport.model_validate(document))


def test_a_miner_on_the_processor_says_so_and_why() -> None:
    assert lines(found()) == [
        "miner at http://host: ready",
        "  Small by llama.cpp on the processor, 2 threads, 8192 tokens of context",
        "  why: 2 threads as set; no GPU",
    ]


@pytest.mark.parametrize(("layers", "words"), [(-1, "all layers on the GPU"), (12, "12 layers on the GPU")])
def test_layers_on_a_gpu_are_named(layers: int, words: str) -> None:
    hardware = {**HARDWARE, "gpu_layers": layers, "gpu_offload_active": True}
    assert words in lines(found(hardware=hardware))[1]


def test_a_fallback_says_what_llama_said() -> None:
    text = "\n".join(lines(found(engine="torch", engine_reason="unknown pre-tokenizer")))
    assert "by torch" in text
    assert "not by llama.cpp: unknown pre-tokenizer" in text


def test_an_unloaded_model_and_a_miner_without_one_are_told_apart() -> None:
    assert "unloaded until it is asked for" in lines(found(loaded=False))[1]
    waiting = {**found(ready=False, reason="Small is not verified yet"), "models": []}
    assert lines(waiting) == ["miner at http://host: not ready (Small is not verified yet)"]


def test_another_server_that_lists_models_is_described_by_its_readiness_alone() -> None:
    assert lines({**found(), "models": [{"id": "x"}]}) == ["miner at http://host: ready"]


def test_the_load_is_told_where_it_is_known() -> None:
    assert lines({**found(), "running": 2, "waiting": 0})[0] == "miner at http://host: ready, 2 running, 0 waiting"


@pytest.mark.parametrize(("text", "value"), [("x 2.0\n", 2), ("# TYPE x gauge\nx 1e+01\n", 10), ("xy 3\n", None)])
def test_a_gauge_is_read_from_prometheus_text(text: str, value: int | None) -> None:
    assert read_gauge(text, "x") == value
