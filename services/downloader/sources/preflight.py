"""What upstream says of its file against the pin, before any byte. Pure. It may veto, never approve."""

from __future__ import annotations

from services.downloader.sources.base import Facts, UpstreamMismatchError
from shared.genesis import ModelPin


def refuse_mismatch(pin: ModelPin, facts: Facts) -> None:
    """Compare what upstream says with the pin; raises UpstreamMismatchError. It may veto, never approve."""
    if facts.sha256 is not None and facts.sha256 != pin.sha256:
        raise UpstreamMismatchError(
            f"upstream has another file now: its SHA-256 is {facts.sha256}, pinned is {pin.sha256}",
            next_step="the file was replaced upstream, or the pin is wrong: compare with the publisher's announcement",
        )
    if facts.size is None:
        return
    if pin.size_bytes is not None and facts.size != pin.size_bytes:
        raise UpstreamMismatchError(f"upstream has {facts.size} bytes, pinned are {pin.size_bytes}")
    if facts.size > pin.required_bytes:
        raise UpstreamMismatchError(
            f"upstream has {facts.size} bytes, required_disk_space_gb allows {pin.required_bytes}"
        )
