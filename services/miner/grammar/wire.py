"""What travels between the engine and a grammar's process: one packet each, over a SOCK_SEQPACKET pair.

The engine sends the constraint, then for each token `PROPOSE` and, when that token was refused, `ACCEPT` of another
one. The process answers the constraint and each proposal: `YES`, or `NO` with a reason or with the bits of the tokens
that are allowed instead. An accepted token has no answer, so that the matcher may move on while the engine computes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

YES, NO = b"+", b"-"
PROPOSE, ACCEPT = b"p", b"a"
TOKEN = struct.Struct("=ci")
MAX_CONSTRAINT_BYTES = 64 * 1024  # fits the socket's buffer, so that the engine never waits to send one
MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer must match: a GBNF `grammar`, or the text of a JSON `schema`; `field` of a request names it."""

    kind: Literal["grammar", "schema"]
    text: str
    field: Literal["tools"] | None = None

    @property
    def parameter(self) -> str:
        """The field of a request that it came from."""
        return self.field or ("grammar" if self.kind == "grammar" else "response_format")

    def packed(self) -> bytes:
        """Return the first packet."""
        return self.kind[:1].encode() + self.text.encode()

    @classmethod
    def unpacked(cls, packet: bytes) -> Constraint:
        """Read the first packet."""
        return cls("grammar" if packet[:1] == b"g" else "schema", packet[1:].decode())
