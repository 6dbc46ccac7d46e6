"""How many layers the GPUs hold, divided as llama.cpp divides them. Pure.

llama.cpp puts the last layers of a model on the devices, in order, each device a part by its share, and the output
matrix after the last layer. A layer lies on one device as a whole: room that is left on two does not add up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Row
from itertools import accumulate


def fitting_layers(layers: Row[float], rooms: Row[int], shares: Row[float]) -> int:
    """Return how many of `layers` (bytes each, the output matrix last), from the end, fit `rooms` (bytes a device).

    `shares` are the devices' parts in any unit, not all 0.
    """
    for count in range(len(layers), 0, -1):
        loads = divide(layers[-count:], shares)
        if all(load <= max(room, 0) for load, room in zip(loads, rooms, strict=True)):
            return count
    return 0


def divide(layers: Row[float], shares: Row[float]) -> list[float]:
    """Return the bytes that each device gets of these layers."""
    points = [end / sum(shares) for end in accumulate(shares)]
    loads = [0.0] * len(shares)
    for place, size in enumerate(layers):
        loads[min(bisect_right(points, place / len(layers)), len(shares) - 1)] += size
    return loads
