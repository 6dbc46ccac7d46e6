"""A mutation that cosmic-ray lacks: a statement that is only a call is left out, be it a check, a sync or a removal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import PythonNode
from parso.tree import BaseNode, NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]


class LeaveOutCall(Operator):
    """Replace a call whose result nobody takes by `pass`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        """Yield where such a call stands."""
        if self._is_lone_call(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, _index: int) -> NodeOrLeaf:
        """Return `pass` in its place."""
        leaf = node.get_first_leaf()
        leaf.value, prefix = "pass", leaf.prefix
        leaf.prefix = prefix
        return leaf

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """What it does."""
        return (Example("sync(file)", "pass"), Example("if a:\n    b.close()\n", "if a:\n    pass\n"))

    @staticmethod
    def _is_lone_call(node: NodeOrLeaf) -> bool:
        if not isinstance(node, PythonNode) or node.type != "atom_expr":
            return False
        last = node.children[-1]
        is_call = isinstance(last, BaseNode) and last.type == "trailer" and last.children[0].value == "("
        return is_call and node.parent is not None and node.parent.type == "simple_stmt"


class Provider:
    """Gives cosmic-ray the operator, as `r3mes/leave-out-call`."""

    _operators = {"leave-out-call": LeaveOutCall}  # noqa: RUF012 - what cosmic-ray asks for

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._operators)

    def __getitem__(self, name: str) -> type[LeaveOutCall]:
        """Return the operator of a name."""
        return self._operators[name]
