"""The committed vectors of the real minisign, and ways to spoil a signature file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors" / "minisign"
GENESIS = (VECTORS / "genesis.json").read_bytes()


def public_key(who: str = "publisher") -> str:
    """Return what belongs into R3MES_GENESIS_PUBKEY."""
    return (VECTORS / f"{who}.pub").read_text().splitlines()[1]


def signature(name: str = "prehashed") -> bytes:
    return (VECTORS / f"{name}.minisig").read_bytes()


def with_line(number: int, text: str, name: str = "prehashed") -> bytes:
    """Return a signature file whose line `number` (from 0) is another."""
    lines = signature(name).decode().splitlines()
    lines[number] = text
    return "\n".join([*lines, ""]).encode()


def line(number: int, name: str = "prehashed") -> str:
    return signature(name).decode().splitlines()[number]


def with_bytes(number: int, change: Callable[[bytearray], None], name: str = "prehashed") -> bytes:
    """Return a signature file whose base64 line `number` decodes to changed bytes."""
    raw = bytearray(base64.b64decode(line(number, name)))
    change(raw)
    return with_line(number, base64.b64encode(raw).decode(), name)


def flipped(position: int) -> Callable[[bytearray], None]:
    """Return a change of one bit."""

    def change(raw: bytearray) -> None:
        raw[position] ^= 1

    return change


def replaced(start: int, content: bytes) -> Callable[[bytearray], None]:
    """Return a change of some bytes."""

    def change(raw: bytearray) -> None:
        raw[start : start + len(content)] = content

    return change
