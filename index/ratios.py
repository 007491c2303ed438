"""Ratios of durations as small integers: the simplest fraction near a number, "2:1"."""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np

LARGEST = 8                              # term of a ratio
TOLERANCE = 0.1                          # relative; twice the error of an onset, 11 ms, in a quaver at 136 beats a minute


@cache
def fractions() -> tuple[tuple[int, int], ...]:
    """Fractions in lowest terms of numbers up to LARGEST, the simplest (smallest sum of terms) first."""
    terms = range(1, LARGEST + 1)
    return tuple(sorted(((p, q) for p in terms for q in terms if gcd(p, q) == 1), key=lambda one: (sum(one), one)))


def small_ratios(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (value,) numerators and denominators of the simplest fractions within TOLERANCE; 0 and 0 where there is none.

    >>> [part.tolist() for part in small_ratios(np.array([2.05, 0.5, 0.66, 1.0, 100.0, np.nan]))]
    [[2, 1, 2, 1, 0, 0], [1, 2, 3, 1, 0, 0]]
    """
    values = np.asarray(values, np.float64)
    numerators, denominators = np.zeros(len(values), np.int16), np.zeros(len(values), np.int16)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log(values), np.nan)
    for p, q in fractions():
        near = (numerators == 0) & (np.abs(logs - np.log(p / q)) <= np.log1p(TOLERANCE))
        numerators[near], denominators[near] = p, q
    return numerators, denominators
