"""How many more units (tracks, artists) narrow an interval: its width is t / sqrt(n) times the spread of n units.

The spread is taken as given, so the answer is a guide: from a handful of units the spread itself is uncertain.
"""

from __future__ import annotations

from math import sqrt

from tonelake.evaluate.jackknife import MOST_FOLDS, t_quantile

FEW_UNITS = 10                           # below it the spread, and with it the width, is uncertain by a third or more


def units_for_share(count: int, share: float = 0.5) -> int:
    """Return the smallest number of units whose 95 % interval has `share` of the width that `count` units give.

    >>> units_for_share(12), units_for_share(100), units_for_share(2)
    (41, 400, 3)

    Raises ValueError for fewer than two units, which have no interval, or a share that is not between 0 and 1.
    """
    if count < 2 or not 0 < share < 1:
        raise ValueError(f"{count} units, share {share:g}: must be at least 2, and between 0 and 1")
    goal = share * relative_width(count)
    low, high = count, 2 * count
    while relative_width(high) > goal:
        low, high = high, 2 * high
    while high - low > 1:                # `low` is too few, `high` is enough
        middle = (low + high) // 2
        low, high = (middle, high) if relative_width(middle) > goal else (low, middle)
    return high


def relative_width(count: int) -> float:
    """Return the half-width of an interval over `count` units of unit spread."""
    return t_quantile(min(count, MOST_FOLDS) - 1) / sqrt(count)
