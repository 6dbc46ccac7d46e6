"""Runs of tokens that the cache gave up, and whose keys and values lie in memory beside it. Pure.

A cell that is kept costs every step something, since attention walks over it; one that lies in memory costs nothing
until it is wanted again, and then much less than computing it (as llama-server's `--cache-ram`, by runs that the
prefixes have in common instead of whole slots). What was of no use for the longest time is forgotten first, from its
end: a run is of use only together with those above it.
"""

from __future__ import annotations

from itertools import count

from services.miner.engine.cache_moves import Forget, Move, SwapOut
from services.miner.engine.prefix_tree import Blob, Node


class PrefixStore:
    """Room for `limit` tokens. Order: `put` → `drop`, once the node's cells are in the cache or nobody wants them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._blobs: dict[int, Blob] = {}
        self._keys = count()

    @property
    def nodes(self) -> list[Node]:
        """All that lies here."""
        return [node for blob in self._blobs.values() for node in blob.nodes]

    def put(self, node: Node) -> list[Move]:
        """Return what writes the node's cells here, after what makes room for them; nothing where they cannot fit."""
        size = len(node.tokens)
        if size > self.limit:
            return []
        moves: list[Move] = []
        while self.held + size > self.limit:
            oldest = min(filter(_is_free, self.nodes), key=lambda each: each.used_at, default=None)
            if oldest is None:
                return moves  # all that lies here is about to be used
            moves += self.drop(oldest)
            oldest.unlink()
        blob = Blob(next(self._keys), node.start, node.end)
        blob.add(node)
        self._blobs[blob.key] = blob
        self.held += size
        return [*moves, SwapOut(min(node.slots), blob.key, node.start, node.end)]

    def drop(self, node: Node) -> list[Move]:
        """Let the node lie here no longer; return what frees the memory, once it was the last of its blob."""
        blob, node.blob = node.blob, None
        if blob is None:
            return []
        blob.nodes.discard(node)
        if blob.nodes:
            return []
        del self._blobs[blob.key]
        self.held -= blob.size
        return [Forget(blob.key)]


def _is_free(node: Node) -> bool:
    return not node.children and not node.users
