"""What must hold of the prefix cache between any two steps, told from its tree and from the cells of the fake model."""

from __future__ import annotations

from collections.abc import Iterator

from services.miner.engine.prefix_tree import Node
from services.miner.engine.scheduler import Scheduler
from tests.unit.miner.fake_backend import FakeBackend


def check_cache(scheduler: Scheduler, backend: FakeBackend | None = None) -> None:
    """Count everything anew; with `backend`, after its moves, compare cell by cell."""
    cache, running = scheduler.cache, {each.slot: each for each in scheduler.running}
    nodes = list(walk(cache.root))
    assert cache.held == sum(node.computed for node in nodes)
    assert cache.pledged == sum(len(node.tokens) for node in nodes if node.users)
    assert cache.held <= cache.cells
    blobs = {node.blob for node in nodes if node.blob is not None}
    assert cache.stored == sum(blob.size for blob in blobs) <= scheduler.limits.stored
    assert all(blob.nodes == {node for node in nodes if node.blob is blob} for blob in blobs)
    assert not set(running) & set(cache.kept), "a slot both runs and is kept"
    for node in nodes:
        check_node(node, cache.root)
        assert node.users <= set(scheduler.running)
        assert node.slots <= set(running) | set(cache.kept)
    for sequence in scheduler.running:
        assert sequence.leaf is not None
        path = [token for node in reversed(list(sequence.leaf.upwards())) for token in node.tokens]
        assert path == sequence.tokens[: len(path)]
        assert all(sequence in node.users for node in sequence.leaf.upwards())
    if backend is not None:
        check_cells(scheduler, backend, nodes)


def check_node(node: Node, root: Node) -> None:
    parent = node.parent
    assert parent is not None
    assert node.start == parent.end
    assert node.tokens or node.users, "a run of nothing"
    assert 0 <= node.computed <= len(node.tokens)
    assert bool(node.slots) == bool(node.computed), "cells that nobody holds, or holders of nothing"
    assert parent is root or node.slots <= parent.slots
    assert parent is root or node.users <= parent.users
    assert not node.computed or parent is root or parent.complete
    if node.blob is not None:
        assert not node.computed, "in the cache and in memory"
        assert node.blob.start <= node.start < node.end <= node.blob.end
    if node.complete or (node.blob is not None and not node.users):
        return
    assert node.writer is min(node.users, key=lambda user: user.order)
    assert len(node.slots) <= 1, "what is not complete is held by its writer alone"


def check_cells(scheduler: Scheduler, backend: FakeBackend, nodes: list[Node]) -> None:
    assert backend.cells_held == scheduler.cache.held
    assert set(backend.stored) == {node.blob.key for node in nodes if node.blob is not None}
    for node in nodes:
        if node.blob is not None:
            stored = backend.stored[node.blob.key]
            assert [stored[at] for at in range(node.start, node.end)] == node.tokens
    for slot, cells in backend.held.items():
        held = [node for node in nodes if slot in node.slots]
        assert [cell.token for cell in cells] == [token for node in held for token in node.tokens[: node.computed]]
    for sequence in scheduler.running:
        assert sequence.slot is not None
        assert len(backend.held.get(sequence.slot, [])) == sequence.computed


def walk(node: Node) -> Iterator[Node]:
    """Yield every node below, parents first."""
    for child in node.children:
        yield child
        yield from walk(child)
