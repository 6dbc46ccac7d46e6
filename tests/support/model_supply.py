"""Models of mixed size from an origin that is slow and lies now and then, and the genesis that pins them.

A model that lies is served with one wrong byte until the verifier has recorded that; then it is served rightly, so that
the way of a mismatch is walked and the model ends verified all the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.origin import Bucket
from tests.support.origin_server import CHUNK, Answer, Script, ScriptedOrigin, linked

KIB, MIB = 1024, 1024 * 1024
# How large, and how often so large.
SIZES = ((300, 4 * KIB), (4 * KIB, MIB), (MIB, 8 * MIB), (12 * MIB, 48 * MIB))
WEIGHTS = (4, 4, 5, 3)
MOSTLY_LARGE = (2, 2, 2, 6)
LIES = 0.15
SEND_BUFFER = 128 * KIB


@dataclass(frozen=True)
class Model:
    """One pinned file; `lie` is what is served at first, if it is one that lies."""

    slot: int
    content: bytes = field(repr=False)
    digest: str
    lie: bytes | None = field(repr=False, default=None)
    is_size_pinned: bool = True

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def file_name(self) -> str:
        return f"slot-{self.slot}.gguf"

    @property
    def path(self) -> str:
        return f"/org/{self.digest[:16]}/resolve/main/{self.file_name}"

    def entry(self) -> dict[str, object]:
        """Return the genesis entry."""
        return {
            "model_name": f"slot-{self.slot}",
            "file_name": self.file_name,
            "download_source": f"https://huggingface.co{self.path}",
            "verification_sha256": self.digest,
            "required_disk_space_gb": self.size / 10**9,
            "ipfs_fallback_hash": "",
            **({"size_bytes": self.size} if self.is_size_pinned else {}),
        }


class ModelSupply:
    """Draws models and serves them, at `bytes_per_second` over all connections together."""

    def __init__(
        self, origin: ScriptedOrigin, chance: random.Random, bytes_per_second: float, weights: Sequence[int]
    ) -> None:
        self._origin = origin
        self._chance = chance
        self._bucket = Bucket(bytes_per_second)
        self._weights = weights
        self.liars: set[str] = set()

    def draw(self, slot: int, at_most: int, is_rejected: Callable[[str], bool]) -> Model:
        """Return a new model of at most so many bytes, and serve it; `is_rejected` tells whether its lie was found."""
        low, high = self._chance.choices(SIZES, self._weights)[0]
        size = max(300, min(at_most, self._chance.randint(low, high)))
        content = self._chance.randbytes(size)
        lie = None
        if self._chance.random() < LIES:
            at = self._chance.randrange(size)
            lie = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        digest = hashlib.sha256(content).hexdigest()
        model = Model(slot, content, digest, lie, is_size_pinned=self._chance.random() < 0.5)
        if lie is not None:
            self.liars.add(digest)
        self._origin.scripts[model.path] = self._script(model, is_rejected)
        return model

    def retire(self, model: Model) -> None:
        """Serve it no longer."""
        self._origin.scripts.pop(model.path, None)

    def _script(self, model: Model, is_rejected: Callable[[str], bool]) -> Script:
        headers = linked(model.content)

        def script(answer: Answer) -> None:
            data = model.content if model.lie is None or is_rejected(model.digest) else model.lie
            start, end = answer.seen.range or (0, len(data))
            end = min(end, len(data))
            extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if answer.seen.range else {}
            answer.head(206 if extra else 200, {"Content-Length": end - start, **extra, **headers})
            for offset in range(start, end, CHUNK):
                if answer.seen.method == "GET":
                    part = data[offset : min(end, offset + CHUNK)]
                    self._bucket.take(len(part))
                    answer.body(part)

        return script
