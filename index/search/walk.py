"""Order hits so that neighbours follow one another: a walk from the nearest hit through all others.

The walk begins at the first hit and continues to the nearest one that is left (nearest neighbour); then stretches of it are
reversed as long as that brings neighbours nearer (2-opt: Croes 1958).  Deterministic: equal hits keep their order.
"""

from __future__ import annotations

import numpy as np

ORDERS = ("nearest", "walk")
SMALLEST_GAIN = 1e-6                     # smaller ones are rounding errors, and could be gained for ever


def walk(similarities: np.ndarray) -> np.ndarray:
    """Return (hit,) the order of a walk from hit 0 through all hits; `similarities`: (hit, hit), higher is nearer."""
    count = len(similarities)
    order, left = np.zeros(count, np.int64), np.ones(count, bool)
    for step in range(1, count):
        left[order[step - 1]] = False
        order[step] = int(np.where(left, similarities[order[step - 1]], -np.inf).argmax())
    while count > 2 and shorten(order, similarities.astype(np.float64)):
        pass
    return order


def shorten(order: np.ndarray, similarities: np.ndarray) -> bool:
    """Reverse each stretch of the walk, in place, where that increases the sum of similarities; return whether one was.

    The first hit keeps its place, and the walk has an open end: reversing the stretch from `first` to the end replaces one
    step.
    """
    changed = False
    count = len(order)
    for first in range(1, count - 1):
        before = order[first - 1]
        ends = np.arange(first + 1, count)               # the last hit of each stretch that begins at `first`
        gains = similarities[before, order[ends]] - similarities[before, order[first]]
        gains[:-1] += similarities[order[first], order[ends[:-1] + 1]] - similarities[order[ends[:-1]], order[ends[:-1] + 1]]
        best = int(gains.argmax())
        if gains[best] > SMALLEST_GAIN:
            order[first : ends[best] + 1] = order[first : ends[best] + 1][::-1].copy()
            changed = True
    return changed
