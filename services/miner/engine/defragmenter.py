"""Which cells are moved together, and when. Pure.

Sequences that decode in one step get a cell each, side by side, so what they generate lies mixed. On the processor
attention walks over all cells, and leaves those of others out the faster the longer the runs are in which they lie; a
prompt that comes into the holes of an ended sequence would lie as torn. So now and then what was generated since the
last time is moved: each token once, in 1/1000 of the time that computing it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.miner.engine.cache_moves import Gather, Run
from services.miner.engine.sequence import Sequence

LEAST_RUN = 8  # tokens; a shorter run is left where it lies until it has grown
LONGEST_RUN = 256  # tokens at the end of one that could not be moved for long, as another slot held it, too
MOST_AT_ONCE = 1_024  # tokens that are in memory at the same time, on their way


class Defragmenter:
    """`steps`, in which several decoded, from one time to the next; 0 is never.

    Order: each step: `gather` before its decode, `note` after it; `left` when a sequence goes.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._least = min(LEAST_RUN, steps)
        self._mixed = 0
        self._holes = False

    def left(self) -> None:
        """Take note that a sequence went: the next prompt may get its cells."""
        self._holes = True

    def note(self, decoded: int) -> None:
        """Take note of a step in which so many sequences decoded."""
        self._mixed += decoded > 1

    def gather(self, running: Iterable[Sequence], *, prompts: bool) -> list[Gather]:
        """Return what is to be moved now; `prompts`: whether the step computes prompts, which want cells in a row."""
        due = self._least if prompts and self._holes else self._steps
        if not self._steps or self._mixed < due:
            return []
        self._mixed, self._holes = 0, False
        runs = []
        for sequence in running:
            run = _torn(sequence)
            if run is not None and len(run) >= self._least:
                runs.append(run)
                sequence.in_rows = run.end
        return [Gather(group) for group in _groups(runs)]


def _torn(sequence: Sequence) -> Run | None:
    """Return what the sequence generated beside others since the last time, unless another slot holds it, too."""
    leaf, slot = sequence.leaf, sequence.slot
    if leaf is None or slot is None or leaf.slots != {slot}:
        return None
    start = max(sequence.in_rows, leaf.start, sequence.computed - LONGEST_RUN)
    return Run(slot, start, sequence.computed)


def _groups(runs: Iterable[Run]) -> Iterator[tuple[Run, ...]]:
    """Divide runs into groups of at most MOST_AT_ONCE tokens."""
    group: list[Run] = []
    for run in runs:
        if sum(map(len, group)) + len(run) > MOST_AT_ONCE:
            yield tuple(group)
            group = []
        group.append(run)
    if group:
        yield tuple(group)
