"""A radix tree over token ids: which runs of tokens the cache holds, will hold soon, or could get from memory. Pure.

A path from the root is a prefix; a node is the run of tokens that its users and holders have in common. Splitting a
node makes a new upper part, and the old object stays the lower one, so that whoever points to the end of a path keeps
pointing there. Two children of a node may begin alike: two answers that happen to say the same thing are two runs of
cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.miner.engine.sequence import Sequence


@dataclass(slots=True, eq=False)
class Node:
    """`tokens` at positions from `start` on, of which the first `computed` are in the cache.

    `slots` hold all those cells; `users` are the running sequences whose tokens these are, `writer` the one of them
    that computes what is missing. `used_at` and `proven` say when it was of use and whether ever to a second request.
    `blob`: where its keys and values lie in memory, once the cache has given them up.
    """

    start: int
    tokens: list[int]
    parent: Node | None
    children: list[Node] = field(default_factory=list)
    computed: int = 0
    slots: set[int] = field(default_factory=set)
    users: set[Sequence] = field(default_factory=set)
    writer: Sequence | None = None
    used_at: int = 0
    proven: bool = False
    blob: Blob | None = None

    @property
    def end(self) -> int:
        """The position after its last token."""
        return self.start + len(self.tokens)

    @property
    def complete(self) -> bool:
        """All its tokens are in the cache."""
        return self.computed == len(self.tokens)

    def upwards(self) -> Iterator[Node]:
        """Yield this node and those above it, the root left out."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def split(self, count: int) -> Node:
        """Make the first `count` tokens a node of their own, above this one; return it."""
        if self.parent is None or not 0 < count <= len(self.tokens):
            raise ValueError(f"cannot split {len(self.tokens)} tokens at {count}")
        upper = Node(self.start, self.tokens[:count], self.parent, [self], min(count, self.computed))
        upper.slots = set(self.slots) if upper.computed else set()
        upper.users, upper.writer = set(self.users), self.writer
        upper.used_at, upper.proven = self.used_at, self.proven
        self.parent.children[self.parent.children.index(self)] = upper
        self.parent, self.start, self.tokens = upper, self.start + count, self.tokens[count:]
        self.computed -= upper.computed
        if not self.computed:
            self.slots = set()
        if self.blob is not None:
            self.blob.add(upper)
        return upper

    def unlink(self) -> None:
        """Take this node out of the tree."""
        if self.parent is not None:
            self.parent.children.remove(self)


@dataclass(slots=True, eq=False)
class Blob:
    """Positions `start` to `end` in memory under `key`; `nodes` are the runs that were one when it was written."""

    key: int
    start: int
    end: int
    nodes: set[Node] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Tokens that it takes the memory of, as long as any of its nodes wants it."""
        return self.end - self.start

    def add(self, node: Node) -> None:
        """Let one more node find its keys and values here."""
        node.blob = self
        self.nodes.add(node)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known beginning: whole nodes down to `node`, then `count` tokens (0: none) of its child `part`."""

    node: Node
    part: Node | None = None
    count: int = 0

    @property
    def length(self) -> int:
        """Tokens in common."""
        return self.node.end + self.count


def make_root() -> Node:
    """Return a tree that knows nothing."""
    return Node(0, [], None)


def match(root: Node, tokens: list[int], limit: int) -> Match:
    """Find the longest beginning of `tokens[:limit]` in the tree."""
    node = root
    while node.end < limit:
        part, count = _best_child(node, tokens, limit)
        if part is None:
            break
        if count < len(part.tokens):
            return Match(node, part, count)
        node = part
    return Match(node)


def _best_child(node: Node, tokens: list[int], limit: int) -> tuple[Node | None, int]:
    best, longest = None, 0
    for child in node.children:
        if child.tokens and child.tokens[0] == tokens[node.end]:
            count = common_prefix(child.tokens, tokens, node.end, limit)
            if count > longest or (count == longest and best is not None and best.blob is not None):
                best, longest = child, count
    return best, longest


def common_prefix(run: list[int], tokens: list[int], start: int, limit: int) -> int:
    """Return how many tokens of `run` stand at the beginning of `tokens[start:limit]`.

    By halves, since Python compares slices in C.
    """
    low, high = 0, min(len(run), limit - start)
    if run[:high] == tokens[start : start + high]:
        return high
    while low < high - 1:  # alike up to low, not up to high
        middle = (low + high) // 2
        if run[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
