"""Measure how well one set of vectors separates groups, query by query, so that every figure can have an interval.

Besides retrieval (`evaluate.ranking`): the mean cosine of pairs within a group and between groups, their difference (span),
and the area under the ROC curve of telling the two kinds of pairs apart; anisotropy, the mean cosine of all pairs, which is
0 if directions are used evenly (Ethayarajh, arXiv 1909.00512); and hubness, the skewness of how often a clip is among the ten
nearest of others, 0 if no clip is a hub (Radovanović et al. 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tonelake.evaluate import RECALL_AT, Labelled, Ranking, bootstrap_means, jackknife, percentile_interval, rank
from tonelake.index.vectors import power, unit

BINS = 1_000                             # of the cosine histogram and the ROC curve: AUC to four digits
HUBS_AT = 10
BLOCK = 256                              # queries compared at a time

PAIR_FIGURES = (
    "same", "different", "span", "auc", *(f"recall_{k}" for k in RECALL_AT), "r_precision", "map", "anisotropy", "hubness",
)


def raw(vectors: np.ndarray) -> np.ndarray:
    """Return vectors unchanged."""
    return vectors


def centred(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean vector, and scale to unit length."""
    return unit(vectors - vectors.mean(axis=0))


def whitened(vectors: np.ndarray) -> np.ndarray:
    """Scale all directions to equal variance, shrunk towards the original if clips are few (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    deviations = (vectors - vectors.mean(axis=0)).astype(np.float64)
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    return unit((deviations @ power(covariance, -0.5)).astype(np.float32))


# Applied to vectors before they are compared by inner product; `l2` gives the cosine.
PREPARATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "l2": unit, "raw": raw, "centred": centred, "whitened": whitened,
}


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Measurements of every query, before they are averaged."""

    rankings: list[Ranking]              # one per query
    sums: np.ndarray                     # (same or different, query) sums of cosines
    counts: np.ndarray                   # (same or different, query) pairs
    histograms: np.ndarray               # (same or different, track, bin) pairs
    edges: np.ndarray                    # (bin + 1,)
    nearest: np.ndarray                  # (query, HUBS_AT) rows of the nearest clips, -1 if there are fewer
    clips: int


def measure_separation(
    vectors: np.ndarray, labelled: Labelled, queries: np.ndarray, track_of: np.ndarray,
    excluded: Callable[[Labelled, np.ndarray], np.ndarray],
) -> Separation:
    """Measure (clip, dim) vectors, compared by inner product.

    `track_of`: (query,) number of each query's track; `excluded`: returns the mask of excluded pairs.
    """
    tracks = int(track_of.max()) + 1
    bound = float(np.square(vectors).sum(axis=1, dtype=np.float64).max()) * (1 + 1e-6) or 1.0
    sums, counts = np.zeros((2, len(queries))), np.zeros((2, len(queries)))
    histograms = np.zeros((2, tracks * BINS), np.float64)
    nearest = np.full((len(queries), HUBS_AT), -1)
    rankings: list[Ranking] = []
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        block = queries[rows]
        scores = vectors[block] @ vectors.T                          # (query, clip)
        same, counted = labelled.same(block), ~excluded(labelled, block)
        bins = np.clip((scores + bound) * (BINS / (2 * bound)), 0, BINS - 1).astype(np.int64) + track_of[rows, None] * BINS
        for i, mask in enumerate((same & counted, ~same & counted)):
            sums[i, rows] = np.where(mask, scores, 0).sum(axis=1, dtype=np.float64)
            counts[i, rows] = mask.sum(axis=1)
            histograms[i] += np.bincount(bins[mask], minlength=tracks * BINS)
        best = top_columns(np.where(counted, scores, -np.inf), HUBS_AT)
        found = np.where(np.take_along_axis(counted, best, 1), best, -1)
        nearest[rows, : found.shape[1]] = found
        rankings += [rank(scores[i, counted[i]], same[i, counted[i]]) for i in range(len(block))]
    edges = np.linspace(-bound, bound, BINS + 1)
    return Separation(
        rankings=rankings, sums=sums, counts=counts, histograms=histograms.reshape(2, tracks, BINS), edges=edges,
        nearest=nearest, clips=len(vectors),
    )


def top_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Return (query, k) columns of the highest scores, unordered."""
    return np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]


def retrieval_of(found: Separation) -> np.ndarray:
    """Return (figure, query): recall at each of RECALL_AT, R-precision, average precision."""
    return np.array([(*r.recall, r.r_precision, r.precision) for r in found.rankings]).T


def separation_figures(found: Separation, track_of: np.ndarray, weights: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Return each of PAIR_FIGURES with its 95 % interval; `weights`: (draw, track) of the bootstrap."""
    ones = np.ones((1, weights.shape[1]))

    def resampled(drawn: np.ndarray) -> list[np.ndarray]:
        """Return every figure except hubness for each row of weights: (draw,)."""
        same, different = mean_cosines(found, track_of, drawn)
        auc = roc_area(*(drawn @ found.histograms[i] for i in range(2)))
        retrieved = bootstrap_means(retrieval_of(found), track_of, drawn)                   # (draw, figure)
        whole = bootstrap_means(np.stack([found.sums.sum(axis=0), found.counts.sum(axis=0)]), track_of, drawn)
        return [same, different, same - different, auc, *retrieved.T, whole[:, 0] / whole[:, 1]]

    values, draws = resampled(ones), resampled(weights)
    result = {}
    for name, value, drawn in zip(PAIR_FIGURES[:-1], values, draws, strict=True):
        low, high = percentile_interval(drawn)
        result[name] = (float(value[0]), low, high)
    skew = float(hubness(found, track_of, ones)[0])
    error = jackknife(lambda left: hubness(found, track_of, left), weights.shape[1])
    return result | {"hubness": (skew, skew - 1.96 * error, skew + 1.96 * error)}


def mean_cosines(found: Separation, track_of: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Return the mean cosine of all pairs within a group, and of all pairs between groups: (draw,) each."""
    means = []
    for i in range(2):
        sums, counts = (np.bincount(track_of, values[i], weights.shape[1]) for values in (found.sums, found.counts))
        drawn = weights @ counts
        means.append(np.divide(weights @ sums, drawn, out=np.full(len(weights), np.nan), where=drawn > 0))
    return means


def roc_area(same: np.ndarray, different: np.ndarray) -> np.ndarray:
    """Return (draw,) areas under the ROC curve from (draw, bin) histograms; pairs of one bin count as ties."""
    below = np.cumsum(different, axis=1) - different / 2
    pairs = same.sum(axis=1) * different.sum(axis=1)
    return np.divide((same * below).sum(axis=1), pairs, out=np.full(len(same), np.nan), where=pairs > 0)


def hubness(found: Separation, track_of: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (draw,) skewness of how often each clip is among the nearest of the drawn queries."""
    query, column = np.nonzero(found.nearest >= 0)
    lists = sparse.csr_array(
        (np.ones(len(query)), (track_of[query], found.nearest[query, column])), shape=(weights.shape[1], found.clips)
    )
    skews = []
    for row in weights:
        times = row @ lists                                          # (clip,)
        deviation = times - times.mean()
        spread = np.sqrt(np.square(deviation).mean())
        skews.append((deviation**3).mean() / spread**3 if spread > 0 else 0.0)
    return np.array(skews)
