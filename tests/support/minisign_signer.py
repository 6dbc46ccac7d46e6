"""A publisher with a key of its own who signs a genesis as minisign does: for bytes that the vectors do not have."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    """A key made of a number, and its signatures in minisign's format."""

    def __init__(self, number: int, *, key_id: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.key_id = bytes([number]) * 8 if key_id is None else key_id

    @property
    def public_key(self) -> str:
        """What belongs into R3MES_GENESIS_PUBKEY."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(b"Ed" + self.key_id + raw).decode()

    def sign(self, message: bytes, *, comment: str = "genesis", legacy: bool = False, algorithm: bytes = b"") -> bytes:
        """Return the signature file over `message`; `algorithm` is what it claims, where that is another."""
        right = b"Ed" if legacy else b"ED"
        signature = self._key.sign(message if legacy else hashlib.blake2b(message).digest())
        lines = (
            "untrusted comment: signature of the tests",
            base64.b64encode((algorithm or right) + self.key_id + signature).decode(),
            f"trusted comment: {comment}",
            base64.b64encode(self._key.sign(signature + comment.encode())).decode(),
        )
        return "\n".join([*lines, ""]).encode()
