"""Minisign's keys and detached signatures, read strictly. Pure.

A signature file is four lines: an untrusted comment, which is ignored; algorithm, key id and an ed25519 signature; the
trusted comment; and an ed25519 signature over the first one and the trusted comment. `Ed` signs the bytes themselves,
`ED` their BLAKE2b-512. Order of calls: `parse_public_key`, `parse_signature`, `verify`, which checks key id, then the
signature over the bytes, then the one over the comment.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from shared.errors import ConfigurationError
from shared.genesis.quote import quote

# A signature file is copied into accepted.json; minisign's own comments are shorter than a line of text.
MAX_SIGNATURE_BYTES = 4096

_KEY_ID_BYTES = 8
_PUBLIC_KEY_BYTES = 2 + _KEY_ID_BYTES + 32
_ED25519_BYTES = 64
_SIGNATURE_BYTES = 2 + _KEY_ID_BYTES + _ED25519_BYTES
_RAW, _PREHASHED = b"Ed", b"ED"
_LINES = 4
_UNTRUSTED = "untrusted comment:"
_TRUSTED = "trusted comment: "


class SignatureRefusedError(Exception):
    """A signature that is not one, or not this key's over these bytes; says what was found and what is wanted."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"found {found}, wanted {wanted}")
        self.found = found
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An ed25519 public key with the id by which its signatures name it."""

    key_id: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed signature file; `trusted_comment` is text that counts only after `verify`."""

    is_prehashed: bool
    key_id: bytes
    signature: bytes
    trusted_comment: str
    global_signature: bytes


def parse_public_key(text: str) -> PublicKey:
    """Parse the base64 line of a `minisign.pub`; raises ValueError (for pydantic)."""
    raw = _decoded(text.strip())
    if raw is None or len(raw) != _PUBLIC_KEY_BYTES or not raw.startswith(_RAW):
        raise ValueError("wanted a minisign public key: the second line of minisign.pub, 56 characters, RW...")
    return PublicKey(raw[2 : 2 + _KEY_ID_BYTES], raw[2 + _KEY_ID_BYTES :])


def parse_signature(raw: bytes) -> Signature:
    """Parse a `.minisig` file; raises SignatureRefusedError for whatever is not exactly one."""
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise SignatureRefusedError(f"more than {MAX_SIGNATURE_BYTES} bytes", "a minisign signature file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SignatureRefusedError("bytes that are not UTF-8", "a minisign signature file") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if len(lines) != _LINES:
        raise SignatureRefusedError(f"{len(lines)} lines", "the four lines of a minisign signature file")
    if not lines[0].startswith(_UNTRUSTED):
        raise SignatureRefusedError(f"the first line {quote(lines[0])}", f'"{_UNTRUSTED}" and text')
    if not lines[2].startswith(_TRUSTED):
        raise SignatureRefusedError(f"the third line {quote(lines[2])}", f'"{_TRUSTED}" and text')
    signed = _line(lines[1], "second", _SIGNATURE_BYTES)
    algorithm = signed[:2]
    if algorithm not in {_RAW, _PREHASHED}:
        raise SignatureRefusedError(f"the algorithm {quote(algorithm.decode('latin-1'))}", "Ed or ED")
    return Signature(
        is_prehashed=algorithm == _PREHASHED,
        key_id=signed[2 : 2 + _KEY_ID_BYTES],
        signature=signed[2 + _KEY_ID_BYTES :],
        trusted_comment=lines[2].removeprefix(_TRUSTED),
        global_signature=_line(lines[3], "fourth", _ED25519_BYTES),
    )


def verify(key: PublicKey, signature: Signature, message: Iterable[bytes]) -> None:
    """Return if `key` made this signature over the message, which comes in pieces, and its trusted comment.

    Only for `Ed`, which signs the bytes themselves, the message is held as a whole. Raises SignatureRefusedError.
    """
    if signature.key_id != key.key_id:
        raise SignatureRefusedError(
            f"a signature of the key {key_id_text(signature.key_id)}",
            f"one of the key {key_id_text(key.key_id)}, which R3MES_GENESIS_PUBKEY gives",
        )
    signed = _blake2b(message) if signature.is_prehashed else b"".join(message)
    if not _is_ed25519(key, signature.signature, signed):
        raise SignatureRefusedError("a signature that is not over these bytes", "one over exactly this genesis file")
    comment = signature.trusted_comment.encode()
    if not _is_ed25519(key, signature.global_signature, signature.signature + comment):
        raise SignatureRefusedError("a trusted comment that was changed", "the one that was signed")


def _blake2b(message: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b()
    for piece in message:
        digest.update(piece)
    return digest.digest()


def key_id_text(key_id: bytes) -> str:
    """Return a key id as minisign shows it."""
    return key_id[::-1].hex().upper()


def _is_ed25519(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - the services' images are without it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "R3MES_GENESIS_PUBKEY is set, and the package that judges signatures is not installed",
            next_step="install the extra `launcher` (cryptography), or let `r3mes init` start first",
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _line(text: str, which: str, count: int) -> bytes:
    raw = _decoded(text)
    if raw is None:
        raise SignatureRefusedError(f"a {which} line that is not base64", "a minisign signature file")
    if len(raw) != count:
        raise SignatureRefusedError(f"{len(raw)} bytes in the {which} line", f"{count} bytes")
    return raw


def _decoded(text: str) -> bytes | None:
    """Decode base64 in its one canonical form, or return None."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return raw if base64.b64encode(raw).decode() == text else None
