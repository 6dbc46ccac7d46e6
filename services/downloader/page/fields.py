"""Everything that the page shows, as text by the name of its field. Pure; static/fields.js is the same for a browser.

An empty text means that there is nothing to show, and its place is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from services.downloader.page import words
from shared.states import FailureReason, ModelState

Shares = tuple[float, float]
"""How much of how much, for a bar."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_IN_PROGRESS = frozenset({"downloading", "paused", "verifying", "failed"})
_FOLLOWED = frozenset({"downloading", "paused", "verifying"})


def in_bytes(count: float) -> str:
    """Return a size with three digits."""
    for size, unit in _UNITS:
        if count >= size:
            value = count / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"  # noqa: PLR2004 - digits
    return f"{count:.0f} byte{'' if count == 1 else 's'}"


def in_time(seconds: float) -> str:
    """Return a span of time, roughly."""
    whole = max(int(seconds), 0)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def percent(part: float, whole: float | None) -> str:
    """Return a share; 100 % only when nothing is missing."""
    return f"{int(100 * part / whole)} %" if whole else ""


def at(seconds: float | None) -> str:
    """Return a time of day in UTC, since nobody knows the reader's."""
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return ""


def model(status: Mapping[str, Any], now: float) -> dict[str, str | Shares]:
    """Return the fields of a model from its status document; `now` in seconds since the epoch."""
    state, expected, received = status["state"], status["expected_bytes"], status["received_bytes"]
    source = words.SOURCES.get(status["source"], "") if status["source"] else ""
    story = words.STORIES.get(state, "") if status["reason"] is None else words.REASONS.get(status["reason"], "")
    moves = state in _IN_PROGRESS and (received > 0 or state != ModelState.FAILED)
    hashes = state in _FOLLOWED and bool(expected)
    return {
        "name": status["model_name"],
        "state": words.STATES.get(state, state),
        "story": story.format(source=source or words.NO_SOURCE),
        "message": _sentence(status["message"]),
        "next": _next(status, now),
        "received": _progress(received, expected, status["bytes_per_second"], status["eta_seconds"]) if moves else "",
        "received_bar": (received, expected or max(received, 1)) if moves else "",
        "hashed": _progress(status["hashed_bytes"], expected) if hashes else "",
        "hashed_bar": (status["hashed_bytes"], expected) if hashes else "",
        "file": status["file_name"],
        "size": in_bytes(expected) if expected else "",
        "source": source[:1].upper() + source[1:],
        "verified": at(status["verified_at"]),
        "digest": status["sha256"],
    }


def _progress(part: float, whole: float | None, rate: float | None = None, seconds_left: float | None = None) -> str:
    texts = [percent(part, whole), f"{in_bytes(part)} of {in_bytes(whole)}"] if whole else [in_bytes(part)]
    texts += [f"{in_bytes(rate)}/s"] if rate else []
    texts += [f"{in_time(seconds_left)} left"] if seconds_left is not None else []
    return " · ".join(texts)


def _next(status: Mapping[str, Any], now: float) -> str:
    if status["state"] != ModelState.FAILED or status["reason"] == FailureReason.CANCELLED:
        return ""
    if status["next_attempt_at"] is None:
        return "It stays so until somebody acts: correct the cause, then try again."
    return f"Next attempt in {in_time(status['next_attempt_at'] - now)}."


def miner(view: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a miner from its entry in `miners`."""
    running, waiting = view["running"], view["waiting"]
    return {
        "url": view["url"],
        "state": "Ready" if view["ready"] else "Not ready",
        "reason": "" if view["ready"] and view["models"] else _sentence(view["reason"]),
        "load": "" if running is None or waiting is None else f"{running} running, {waiting} waiting",
    }


def served(entry: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the fields of a model that a miner serves."""
    details = entry.get("r3mes") or {}
    hardware = details.get("hardware") or {}
    why = hardware.get("why") or []
    context = details.get("context_tokens")
    return {
        "name": entry["id"],
        "asleep": "" if details.get("loaded", True) else "Unloaded for lack of requests; the next one loads it again.",
        "engine": details.get("engine", ""),
        "engine_reason": _sentence(details.get("engine_reason", "")),
        "device": _device(hardware),
        "device_reason": _sentence(next((line for line in why if "GPU" in line), "")),
        "context": f"{context:,} tokens" if context else "",
        "quantization": details.get("quantization", ""),
        "why": why,
    }


def _device(hardware: Mapping[str, Any]) -> str:
    threads = hardware.get("threads")
    if hardware.get("gpu_offload_active"):
        layers = hardware.get("gpu_layers")
        return "GPU, all layers" if layers is None or layers < 0 else f"GPU, {layers} layers"
    return "" if threads is None else f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""


def node(facts: Mapping[str, Any]) -> dict[str, str | Shares]:
    """Return the fields of the node from its facts."""
    disk, queue = facts["disk"], facts["queue"] or {}
    used = disk["total_bytes"] - disk["free_bytes"]
    return {
        "node": facts["node"],
        "version": facts["version"],
        "genesis": facts["genesis_sha256"],
        "staged": facts["staged_genesis_sha256"] or "",
        "redis": "Answers" if facts["redis_up"] else "Away: verdicts wait, downloads go on",
        "queue": f"{queue['queued']} waiting, {queue['started']} at work" if queue else "Unknown while Redis is away",
        "disk": f"{in_bytes(disk['free_bytes'])} free of {in_bytes(disk['total_bytes'])}",
        "disk_bar": (used, disk["total_bytes"]),
    }


def headline(models: Sequence[Mapping[str, Any]], miners: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the tone (`good`, `busy`, `bad`) and the one sentence that says where the node stands."""
    ready = [view for view in miners if view["ready"]]
    if ready:
        names = list(dict.fromkeys(entry["id"] for view in ready for entry in view["models"]))
        count = "A miner is" if len(ready) == 1 else f"{len(ready)} miners are"
        return "good", f"{count} ready{_after(': ', ', '.join(names))}."
    for state in ("downloading", "verifying"):
        for status in models:
            if status["state"] == state:
                done = status["received_bytes"] if state == "downloading" else status["hashed_bytes"]
                share = _after(", ", percent(done, status["expected_bytes"]))
                return "busy", f"{words.STATES[ModelState(state)]} {status['model_name']}{share}."
    verified = [status for status in models if status["state"] == "verified"]
    if verified:
        name = verified[0]["model_name"]
        return "busy", f"{name} is verified, but no miner {'is ready' if miners else 'answers'} yet."
    failed = [status for status in models if status["state"] in {"failed", "vetoed"}]
    if failed:
        return "bad", f"{failed[0]['model_name']} is not here, and needs a look."
    return "busy", "No model is here yet."


def _after(sign: str, text: str) -> str:
    return f"{sign}{text}" if text else ""
