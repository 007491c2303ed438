"""How well neighbours agree with labels: recall@k, R-precision and mean average precision, with bootstrap intervals.

A query's ranking is all other clips by similarity, without those that share its audio (or its track).  Clips of one
score count together, each order of them as likely as another, so the order of ties never matters; average precision is
then scikit-learn's.  Recall@k is the share of queries with a clip of their group among the k nearest (as in metric
learning: Jégou et al. 2011); R-precision the share of hits among the first R, R being how many there are (Manning et al.,
Introduction to Information Retrieval, section 8.4).
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np

RECALL_AT = (1, 10)


class Ranking(NamedTuple):
    """One query's result."""

    precision: float                     # average precision
    recall: tuple[float, ...]            # at each of RECALL_AT: how likely a hit is among so many
    r_precision: float


def rank(scores: np.ndarray, positive: np.ndarray) -> Ranking:
    """Judge one query: (candidate,) scores, and which candidates belong to its group (at least one)."""
    ordered = np.sort(scores)
    hits = np.sort(scores[positive])
    # For each hit, how many candidates, and how many hits, score at least as much.
    at_least = len(ordered) - np.searchsorted(ordered, hits, side="left")
    hits_at_least = len(hits) - np.searchsorted(hits, hits, side="left")
    found = len(hits)
    above, tied, hits_above, tied_hits = boundary(ordered, hits, found)
    r_precision = (hits_above + (found - above) * tied_hits / tied) / found
    recall = tuple(likely_hit(*boundary(ordered, hits, k), k) for k in RECALL_AT)
    return Ranking(float((hits_at_least / at_least).mean()), recall, float(r_precision))


def boundary(ordered: np.ndarray, hits: np.ndarray, k: int) -> tuple[int, int, int, int]:
    """Around the k-th best of the sorted scores: how many score more, how many the same, and of these the hits."""
    at = ordered[max(len(ordered) - k, 0)]
    counts = []
    for values in (ordered, hits):
        above = len(values) - int(np.searchsorted(values, at, side="right"))
        counts.append((above, len(values) - int(np.searchsorted(values, at, side="left")) - above))
    (above, tied), (hits_above, tied_hits) = counts
    return above, tied, hits_above, tied_hits


def likely_hit(above: int, tied: int, hits_above: int, tied_hits: int, k: int) -> float:
    """How likely a hit is among the first k, where those of the k-th score come in any order."""
    if hits_above:
        return 1.0
    places = min(k - above, tied)
    return 1.0 - comb(tied - tied_hits, places) / comb(tied, places)

