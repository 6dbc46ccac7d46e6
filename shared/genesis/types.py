"""What a parsed genesis is: frozen values that were checked once, by the parser, and never change."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

GIGABYTE = 10**9


@dataclass(frozen=True, slots=True)
class ModelPin:
    """One model of the genesis.

    `sha256` is 64 lower-case hex digits (`verification_sha256` on the wire); `file_name` a bare `*.gguf` name;
    `ipfs_fallback_hash` a CID or empty; `size_bytes` the exact size where the genesis gives it.
    """

    model_name: str
    file_name: str
    download_source: str
    sha256: str
    required_disk_space_gb: float
    ipfs_fallback_hash: str
    size_bytes: int | None

    @property
    def required_bytes(self) -> int:
        """`required_disk_space_gb` in bytes (1 GB = 10^9 bytes), exactly as it was written in decimal."""
        return gigabytes_to_bytes(self.required_disk_space_gb)

    def to_json(self) -> dict[str, str | int | float]:
        """Return the wire form, keys in the order of the contract, without an absent `size_bytes`."""
        wire: dict[str, str | int | float] = {
            "model_name": self.model_name,
            "file_name": self.file_name,
            "download_source": self.download_source,
            "verification_sha256": self.sha256,
            "required_disk_space_gb": self.required_disk_space_gb,
            "ipfs_fallback_hash": self.ipfs_fallback_hash,
        }
        if self.size_bytes is not None:
            wire["size_bytes"] = self.size_bytes
        return wire


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An active entry of a chain genesis that is not taken: where it stands, a name for a person, and why."""

    path: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Genesis:
    """The pinned models in the file's order, and the SHA-256 (hex) of the raw bytes that they were read from.

    `left_out`: what a person must be told of a chain genesis; empty in the plain forms.
    """

    models: tuple[ModelPin, ...]
    sha256: str
    left_out: tuple[LeftOut, ...] = ()

    def by_digest(self, sha256: str) -> ModelPin | None:
        """Return the model whose file has this digest (64 lower-case hex digits)."""
        return next((pin for pin in self.models if pin.sha256 == sha256), None)

    def by_name(self, model_name: str) -> ModelPin | None:
        """Return the model of this name, which is its id everywhere."""
        return next((pin for pin in self.models if pin.model_name == model_name), None)


def gigabytes_to_bytes(gigabytes: float) -> int:
    """Return whole bytes, rounded down; 0.1 GB is 100,000,000 bytes whatever a binary float makes of 0.1."""
    return int((Decimal(repr(gigabytes)) * GIGABYTE).to_integral_value(ROUND_FLOOR))
