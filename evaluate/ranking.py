"""Retrieval metrics of nearest neighbours against labels: recall@k, R-precision and average precision.

A query's ranking holds all other clips by similarity, without those that share its audio (or its track).  Clips of equal
score are counted together, every order of them equally likely, so the order of ties never matters; average precision then
equals scikit-learn's.  Recall@k is the share of queries with a clip of their group among the k nearest (as in metric
learning: Jégou et al. 2011); R-precision is the share of hits among the first R, the number of relevant clips (Manning et
al., Introduction to Information Retrieval, section 8.4).  scikit-learn has no recall@k or R-precision with ties.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np

RECALL_AT = (1, 10)


class Ranking(NamedTuple):
    """Metrics of one query."""

    precision: float                     # average precision
    recall: tuple[float, ...]            # probability of a hit among the first k, for each k of RECALL_AT
    r_precision: float


def rank(scores: np.ndarray, positive: np.ndarray) -> Ranking:
    """Return the metrics of one query from (candidate,) scores and which candidates belong to its group (at least one)."""
    ordered = np.sort(scores)
    hits = np.sort(scores[positive])
    # For each hit: how many candidates, and how many hits, score at least as much.
    at_least = len(ordered) - np.searchsorted(ordered, hits, side="left")
    hits_at_least = len(hits) - np.searchsorted(hits, hits, side="left")
    found = len(hits)
    above, tied, hits_above, tied_hits = counts_around_rank(ordered, hits, found)
    r_precision = (hits_above + (found - above) * tied_hits / tied) / found
    recall = tuple(hit_probability(*counts_around_rank(ordered, hits, k), k) for k in RECALL_AT)
    return Ranking(float((hits_at_least / at_least).mean()), recall, float(r_precision))


def counts_around_rank(ordered: np.ndarray, hits: np.ndarray, k: int) -> tuple[int, int, int, int]:
    """Count scores above and equal to the k-th best of the sorted scores, first among all candidates, then among hits."""
    at = ordered[max(len(ordered) - k, 0)]
    counts = []
    for values in (ordered, hits):
        above = len(values) - int(np.searchsorted(values, at, side="right"))
        counts.append((above, len(values) - int(np.searchsorted(values, at, side="left")) - above))
    (above, tied), (hits_above, tied_hits) = counts
    return above, tied, hits_above, tied_hits


def hit_probability(above: int, tied: int, hits_above: int, tied_hits: int, k: int) -> float:
    """Return the probability of a hit among the first k if candidates tied at the k-th score come in random order."""
    if hits_above:
        return 1.0
    slots = min(k - above, tied)
    return 1.0 - comb(tied - tied_hits, slots) / comb(tied, slots)

