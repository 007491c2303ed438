"""Measure how well one set of vectors separates groups, on all jackknife units and without each of them.

Besides retrieval (`evaluate.ranking`) and hubness (`index.separation.occurrence`): the mean cosine of pairs within a group and
between groups, their difference (span), and the area under the ROC curve of telling the two kinds of pairs apart; anisotropy,
the mean cosine of all pairs, which is 0 if directions are used evenly (Ethayarajh, arXiv 1909.00512).

The matrix span is the difference of the highest and lowest mean cosine of two different groups, as studies of artists print it.
It has no interval: extremes of many noisy means grow with the noise, and neither jackknife nor bootstrap covers that.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate import (
    BINS,
    EXCLUDED,
    RANK_FIGURES,
    RECALL_AT,
    Crossfit,
    Estimate,
    Labelled,
    RankSums,
    Replicates,
    crossfit,
    exact_area,
    jackknife_error,
    logit_estimate,
    make_bins,
    order_candidates,
    rank_queries,
    replicate_area,
    replicate_pair_sums,
    replicates_of_ranks,
    stack_replicates,
    stratified,
)
from tonelake.index.separation.occurrence import nearest_without_units, replicate_hubness
from tonelake.index.separation.pair_set import PairBlock, PairSet

HISTOGRAM_BINS = 50
MOST_MATRIX_GROUPS = 4_000               # of the matrix span: 16 million pairs of groups, 64 MB
BOUNDED = ("auc", *RANK_FIGURES)         # figures between 0 and 1
# Intervals of these are symmetric on the logit scale; that of recall@10, which is often near 1, would be too wide.
LOGIT = ("auc", "recall_1", "r_precision", "map")
MOST_THREADS = 4                         # that rank blocks of queries, about 100 MB each
SAMPLED = 1 << 17                        # scores that the bins of the area are made from

WITHIN_GROUPS = ("same", "span", "auc")              # figures of pairs of one group
PAIR_FIGURES = (
    "same", "different", "span", "auc", *(f"recall_{k}" for k in RECALL_AT), "r_precision", "map", "anisotropy", "hubness",
)


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Figures of one layer."""

    figures: dict[str, Replicates]       # each of PAIR_FIGURES
    matrix_span: float                   # NaN with fewer than three groups, or more than MOST_MATRIX_GROUPS
    map_without: np.ndarray              # (part,) mAP without each part of the folds
    histogram: pl.DataFrame              # low, high, same, different: shares of pairs by cosine

    def estimate(self, name: str) -> Estimate:
        """Return one of PAIR_FIGURES with its interval."""
        if name in LOGIT:
            return logit_estimate(self.figures[name])
        return self.figures[name].estimate((0, 1) if name in BOUNDED else None)

    def columns(self, names: tuple[str, ...] = PAIR_FIGURES) -> dict[str, float]:
        """Return figures as three columns each: the value, _low and _high."""
        row: dict[str, float] = {}
        for name in names:
            found = self.estimate(name)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return row


def measure_separation(vectors: np.ndarray, pairs: PairSet, offsets: np.ndarray | None = None) -> Separation:
    """Measure (clip, dim) vectors, compared by inner product; `offsets`: (clip,) half of each is subtracted from a score.

    Scores are computed around the mean vector, which keeps them apart in float32 even if all of them are nearly equal.
    """
    centre = vectors.mean(axis=0, dtype=np.float64).astype(vectors.dtype).astype(np.float64)
    constant = float(centre @ centre)
    away = vectors - centre.astype(vectors.dtype)
    own = (away @ centre - (0 if offsets is None else offsets / 2)).astype(np.float32)
    away = away.astype(np.float32, copy=False)                       # score: a · b + own of a + own of b + constant
    number, of = pairs.units.folds, pairs.units.of
    in_fold = (of[:, None] == np.arange(number)).astype(np.float32)          # (clip, fold)
    scores = np.empty((len(pairs.rows), len(vectors)), np.float32)
    sums, ranked = np.zeros((2, number, number)), RankedBlocks(pairs)
    start = 0
    for block in pairs.blocks:
        part = scores[start : start + len(block.rows)]
        np.matmul(away[block.rows], away.T, out=part)
        part += own[block.rows, None]
        part += own
        query = of[block.rows]
        whole = np.zeros((number, number))
        np.add.at(whole, query, (part @ in_fold).astype(np.float64))
        sums[0] += sum_cells(part, block.hits, query, of, number)
        sums[1] += whole - sum_cells(part, block.excluded, query, of, number)
        part[block.excluded] = EXCLUDED
        start += len(block.rows)
    ranked.measure(scores)
    figures = mean_figures(sums, pairs.pair_counts, constant)
    figures |= ranked.figures()
    same = np.sort(np.concatenate([
        scores[at : at + len(block.rows)][block.hits] for at, block in zip(ranked.starts, pairs.blocks, strict=True)
    ]))
    histograms = unit_histograms(scores, pairs)
    scores.ravel().sort()
    ordered = scores.ravel()[sum(len(block.excluded[0]) for block in pairs.blocks) :]
    figures["auc"] = replicate_area(exact_area(same, ordered), histograms[0], histograms[1])
    return Separation(
        figures={
            name: stratified(figures[name], pairs.units.strata, within=name in WITHIN_GROUPS) for name in PAIR_FIGURES
        },
        matrix_span=matrix_span(away, own, pairs),
        map_without=ranked.map_without(), histogram=histogram(same, ordered, constant),
    )


def sum_cells(
    scores: np.ndarray, cells: tuple[np.ndarray, np.ndarray], query: np.ndarray, of: np.ndarray, number: int
) -> np.ndarray:
    """Return (fold, fold) sums of the scores of some cells, by the folds of their query and candidate."""
    rows, columns = cells
    at = query[rows] * number + of[columns]
    return np.bincount(at, scores[rows, columns], minlength=number * number).reshape(number, number)


def mean_figures(sums: np.ndarray, counts: tuple[np.ndarray, np.ndarray], constant: float) -> dict[str, Replicates]:
    """Return same, different, span and anisotropy from (same or all, fold, fold) sums of scores less `constant`."""
    (same, whole), (same_pairs, all_pairs) = map(replicate_pair_sums, sums), map(replicate_pair_sums, counts)
    within, between, mean = same / same_pairs, (whole - same) / (all_pairs - same_pairs), whole / all_pairs
    moved = {"same": within, "different": between, "anisotropy": mean}
    return {name: Replicates(one.value + constant, one.left_out + constant) for name, one in moved.items()} | {
        "span": within - between
    }


class RankedBlocks:
    """Rankings and nearest clips of blocks of queries, gathered one by one."""

    def __init__(self, pairs: PairSet) -> None:
        self.pairs = pairs
        self.ranks: list[RankSums] = []
        self.nearest: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.starts: list[int] = []

    def measure(self, scores: np.ndarray) -> None:
        """Rank the candidates of all queries by (query, clip) scores, those that are left out being EXCLUDED."""
        sizes = [len(block.rows) for block in self.pairs.blocks]
        self.starts = [0, *np.cumsum(sizes)[:-1].tolist()]
        parts = [scores[start : start + size] for start, size in zip(self.starts, sizes, strict=True)]
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            found = list(pool.map(self.measure_block, parts, self.pairs.blocks))
        self.ranks, self.nearest = [one[0] for one in found], [one[1] for one in found]

    def measure_block(
        self, scores: np.ndarray, block: PairBlock
    ) -> tuple[RankSums, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the rankings and the nearest clips of one block."""
        units, ordered = self.pairs.units, order_candidates(scores, *block.hits)
        counted = scores.shape[1] - np.bincount(block.excluded[0], minlength=len(scores))
        nearest = nearest_without_units(ordered.candidates, counted, units.of)
        return rank_queries(ordered, units.of[block.rows], self.pairs.folds), nearest

    def figures(self) -> dict[str, Replicates]:
        """Return RANK_FIGURES and hubness."""
        units, query = self.pairs.units, self.pairs.units.of[self.pairs.rows]
        nearest, own, moved_up = (np.concatenate(parts) for parts in zip(*self.nearest, strict=True))
        found = replicates_of_ranks(self.total(), self.pairs.folds)
        return found | {"hubness": replicate_hubness(nearest, own, moved_up, query, units.of, units.folds)}

    def total(self) -> RankSums:
        values = np.concatenate([one.values for one in self.ranks], axis=1)
        return RankSums(
            np.sum([one.sums for one in self.ranks], axis=0), np.sum([one.counts for one in self.ranks], axis=0), values
        )

    def map_without(self) -> np.ndarray:
        found = self.total()
        parts = slice(self.pairs.folds.number, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return found.sums[-1, parts] / found.counts[parts]


def unit_histograms(scores: np.ndarray, pairs: PairSet) -> tuple[np.ndarray, np.ndarray]:
    """Return (1 + fold, bin) numbers of pairs of one group and of two groups: of all pairs, then of the pairs of each fold.

    A pair belongs to the folds of its query and of its candidate.  `scores`: (query, clip), those left out being EXCLUDED.
    """
    number, of = pairs.units.folds, pairs.units.of
    flat = scores.ravel()
    sample = flat[:: max(1, len(flat) // SAMPLED)]
    bins = make_bins(sample[sample > EXCLUDED])
    lowest = int(bins.find(np.array([EXCLUDED]))[0])
    size = number * BINS
    same, whole = np.zeros((2, 3, size))                             # by query, by candidate, by both
    candidate = of * BINS
    start = 0
    for block in pairs.blocks:
        part = scores[start : start + len(block.rows)]
        start += len(block.rows)
        found, query = bins.find(part), of[block.rows]
        rows, columns = block.hits
        hit = found[rows, columns]
        add_pairs(same, hit, query[rows], of[columns])
        rows, columns = cells_of_own_fold(query, of)
        whole[2] += np.bincount(query[rows] * BINS + found[rows, columns], minlength=size)
        found += candidate
        whole[1] += np.bincount(found.ravel(), minlength=size)
        found += (query * BINS)[:, None] - candidate
        whole[0] += np.bincount(found.ravel(), minlength=size)
        rows, columns = block.excluded
        add_pairs(whole, np.full(len(rows), lowest), query[rows], of[columns], -1)
    same, whole = same.reshape(3, number, BINS), whole.reshape(3, number, BINS)
    histograms = [np.concatenate([one[0].sum(axis=0, keepdims=True), one[0] + one[1] - one[2]]) for one in (same, whole)]
    return histograms[0], histograms[1] - histograms[0]


def cells_of_own_fold(query: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (pair,) rows and columns of the candidates of each query's own fold."""
    order, counts = np.argsort(of, kind="stable"), np.bincount(of)
    sizes, starts = counts[query], (np.cumsum(counts) - counts)[query]
    rows = np.repeat(np.arange(len(query)), sizes)
    return rows, order[np.arange(len(rows)) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)]


def add_pairs(counts: np.ndarray, bins: np.ndarray, query: np.ndarray, candidate: np.ndarray, sign: int = 1) -> None:
    """Count pairs by bin and by the folds of their query, of their candidate, and of both where they are equal."""
    size, own = counts.shape[1], query == candidate
    counts[0] += sign * np.bincount(query * BINS + bins, minlength=size)
    counts[1] += sign * np.bincount(candidate * BINS + bins, minlength=size)
    counts[2] += sign * np.bincount(query[own] * BINS + bins[own], minlength=size)


def histogram(same: np.ndarray, ordered: np.ndarray, constant: float) -> pl.DataFrame:
    """Return low, high, same, different: shares of pairs of each kind by score, from the sorted scores of both."""
    edges = np.linspace(float(ordered[0]), float(ordered[-1]), HISTOGRAM_BINS + 1)
    counts = [np.diff(np.searchsorted(values, edges[1:-1].astype(np.float32)), prepend=0, append=len(values))
              for values in (same, ordered)]
    shares = [one / max(one.sum(), 1) for one in (counts[0], counts[1] - counts[0])]
    return pl.DataFrame({"low": edges[:-1] + constant, "high": edges[1:] + constant, "same": shares[0], "different": shares[1]})


def matrix_span(away: np.ndarray, own: np.ndarray, pairs: PairSet) -> float:
    """Return the highest less the lowest mean score of two different groups, over their pairs of clips of different tracks.

    The score of two clips is the product of their rows of `away` plus their `own`; sums over pairs follow from both.
    """
    labelled: Labelled = pairs.labelled
    groups = len(labelled.names)
    if not 3 <= groups <= MOST_MATRIX_GROUPS:
        return float("nan")
    def sum_pairs(rows: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
        """(row, row) sums of scores, and numbers of pairs, from (row, clip) members."""
        vectors, single, counts = (rows @ away).astype(np.float64), rows @ own.astype(np.float64), rows.sum(axis=1)
        mixed = np.outer(single, counts)
        return vectors @ vectors.T + mixed + mixed.T, np.outer(counts, counts)

    total, number = sum_pairs(labelled.member.T.tocsr())
    group, part = labelled.parts()
    track = labelled.track[part.indices[part.indptr[:-1]]]
    shared = np.bincount(track)[track] > 1                           # parts of tracks that are in several groups
    for one in np.unique(track[shared]):
        rows = np.flatnonzero(track == one)
        within, pairs_within = sum_pairs(part[rows])
        total[np.ix_(group[rows], group[rows])] -= within
        number[np.ix_(group[rows], group[rows])] -= pairs_within
    apart = np.triu(number > 0.5, 1)
    means = total[apart] / number[apart]
    return float(np.ptp(means)) if len(means) > 1 else float("nan")


def crossfit_map(layers: list[Separation], pairs: PairSet) -> tuple[Crossfit, Estimate]:
    """Choose the layer with the highest mAP on either half of the units, and report its mAP by the other half.

    Neither queries nor candidates of a half take part in the choice on the other.  Half of the units have fewer pairs and
    another mAP, so only the lead of the chosen layer over the mean of all layers is taken from them, and added to that mean on
    all units.  For equally good layers the reported mAP is unbiased; that of the queries of a part, compared with all
    candidates, would still be too high, by .02 for thirteen layers of 64 tracks.
    """
    figures = stack_replicates([one.figures["map"] for one in layers])
    found = crossfit_halves([one.map_without for one in layers], figures)
    if not np.isfinite(found.value):
        return found, Estimate(np.nan, np.nan, np.nan)
    return found, logit_estimate(replicates_of_chosen(found.value, figures, found.shares))


def crossfit_halves(map_without: list[np.ndarray], figures: Replicates) -> Crossfit:
    """Choose between candidates on either half of the units, and report by the other (see `crossfit_map`).

    `map_without`: of each candidate, (half,) mAP without it; `figures`: (candidate,) mAP.  The value is NaN for too few units.
    """
    halves = np.stack(map_without, axis=1)                           # (half, candidate)
    if len(halves) != 2 or not np.isfinite(halves).all():
        return Crossfit(np.nan, np.zeros(halves.shape[1]), np.empty(0, np.int64))
    return crossfit(halves, figures.value.mean() + halves[::-1] - halves[::-1].mean(axis=1, keepdims=True))


def replicates_of_chosen(value: float, figures: Replicates, shares: np.ndarray) -> Replicates:
    """Return a cross-fitted value with the spread of the (candidate,) figures, weighted by how often each was chosen.

    The halves are independent, so their candidates' errors add up as squares.
    """
    errors, most = jackknife_error(figures.left_out), int(shares.argmax())
    error = np.sqrt(shares @ np.square(errors))
    deviations = (figures.left_out[:, most] - figures.left_out[:, most].mean()) * np.divide(error, errors[most] or 1.0)
    return Replicates(np.array(value), value + deviations)
