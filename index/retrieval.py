"""How well neighbours agree with labels: recall@1 and mean average precision, with bootstrap intervals.

A query's ranking is all other clips by similarity, without those that share its audio (or its track).  Clips of one
score count together, as in scikit-learn's average_precision_score, so the order of ties never matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """One query's result."""

    precision: float                     # average precision
    first: float                         # 1 where the nearest clip belongs to the query's group; a share where tied


def rank(scores: np.ndarray, positive: np.ndarray) -> Ranking:
    """Judge one query: (candidate,) scores, and which candidates belong to its group (at least one)."""
    ordered = np.sort(scores)
    hits = np.sort(scores[positive])
    # For each hit, how many candidates, and how many hits, score at least as much.
    at_least = len(ordered) - np.searchsorted(ordered, hits, side="left")
    hits_at_least = len(hits) - np.searchsorted(hits, hits, side="left")
    best = ordered[-1]
    tied = len(ordered) - np.searchsorted(ordered, best, side="left")
    tied_hits = len(hits) - np.searchsorted(hits, best, side="left")
    return Ranking(float((hits_at_least / at_least).mean()), tied_hits / tied)


def resample_weights(units: int, draws: int, seed: int) -> np.ndarray:
    """(draw, unit) float64: how often each unit is drawn in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)


def bootstrap_means(values: np.ndarray, unit_of: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bootstrap of means over queries, whole tracks drawn at a time since clips of a track are not independent.

    `values`: (…, query); `unit_of`: (query,) the track of each query, 0 to units - 1; `weights`: (draw, unit).
    Returns (draw, …).
    """
    units = weights.shape[1]
    flat = values.reshape(-1, values.shape[-1])
    sums = np.stack([np.bincount(unit_of, weights=row, minlength=units) for row in flat])        # (…, unit)
    counts = np.bincount(unit_of, minlength=units)
    means = (weights @ sums.T) / np.maximum(weights @ counts, 1)[:, None]
    return means.reshape(len(weights), *values.shape[:-1])
