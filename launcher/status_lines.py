"""The status as plain lines: for a pipe, a file, a terminal that can do nothing. Pure; times are moments, in UTC.

What a line says changes only when the state does, so that two outputs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.filesize import decimal

from launcher.display import printable
from launcher.miner_status import describe_miner
from launcher.status import Disk, Host, Report
from launcher.words_of_time import iso
from shared.states import ModelState, ModelStatus


def status_lines(found: Report) -> Iterator[str]:
    """Yield the lines of the whole status."""
    for model in found.models:
        yield from describe(model)
    for miner in found.miners:
        yield from map(one_line, describe_miner(miner))
    yield from describe_host(found.host)


def describe(model: ModelStatus) -> list[str]:
    """Say in one line, or two, how a model is."""
    state = f"{model.state} ({model.reason})" if model.reason else str(model.state)
    size = [decimal(model.expected_bytes)] if model.expected_bytes else []
    if size and model.received_bytes and model.state is not ModelState.VERIFIED:
        size = [f"{decimal(model.received_bytes)} of {size[0]}"]
    parts = [state, *size]
    if model.source:
        parts.append(f"from {model.source}")
    if model.verified_at and model.state is ModelState.VERIFIED:
        parts.append(f"verified {iso(model.verified_at)}")
    if model.next_attempt_at and model.state is ModelState.FAILED:
        parts.append(f"tried again {iso(model.next_attempt_at)}")
    line = one_line(f"{model.model_name}: {', '.join(parts)}, sha256 {model.sha256}")
    return [line, f"  {one_line(model.message)}"] if model.message else [line]


def describe_host(host: Host) -> Iterator[str]:
    """Say what else there is: queue, Redis, disk."""
    if host.queue is not None:
        yield f"queue: {queue_words(host.queue)}"
    if host.redis_up is not None:
        yield f"redis: {redis_words(is_up=host.redis_up)}"
    if host.disk is not None:
        yield f"disk: {disk_words(host.disk)}"


def queue_words(queue: dict[str, int]) -> str:
    """Say how many verifications wait, and how many are under way."""
    return f"{queue.get('queued', 0)} waiting, {queue.get('started', 0)} at work"


def redis_words(*, is_up: bool) -> str:
    """Say whether Redis answers the downloader."""
    return "answers" if is_up else "is away: verdicts have to wait"


def disk_words(disk: Disk) -> str:
    """Say how much room there is."""
    return f"{decimal(disk.free_bytes)} free of {decimal(disk.total_bytes)}"


def origin(found: Report) -> str:
    """Say where a report is from."""
    return f"no stack answers; from the store {found.origin}" if found.is_store else f"from {found.origin}"


def one_line(text: str) -> str:
    """Return text from outside as one line that steers nothing; its indent stays."""
    indent = " " * (len(text) - len(text.lstrip(" ")))
    return indent + " ".join(printable(text).split())
