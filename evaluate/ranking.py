"""Retrieval metrics of nearest neighbours against labels, on all candidates and without each jackknife unit.

A query's ranking holds all other clips by score, without those that are excluded (its track's).  Metrics: recall@k, the share
of queries with a clip of their group (a hit) among the k nearest, as in metric learning (Jégou et al. 2011); R-precision, the
share of hits among the first R, the number of hits there are (Manning et al., Introduction to Information Retrieval, section
8.4); average precision.  Clips of equal score are counted together, every order of them equally likely, so the order of ties
never matters; average precision then equals scikit-learn's, which has no recall@k or R-precision with ties.

Leaving a unit out removes its queries, and its clips from the rankings of the others.  This is exact and needs one sort a
query: each hit's rank falls by the number of the unit's clips that score at least as much, counted for all units at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tonelake.evaluate.chance import expected_average_precision
from tonelake.evaluate.jackknife import Replicates

RECALL_AT = (1, 10)
RANK_FIGURES = (*(f"recall_{k}" for k in RECALL_AT), "r_precision", "map")
EXCLUDED = np.float32(-1e20)             # score of an excluded candidate: below every other

# A float32 score as float64 leaves the low 29 bits free: the candidate's number, and whether it is a hit.
INDEX_BITS = 28
HIT = 1 << INDEX_BITS
INDEX = HIT - 1
PAYLOAD = (HIT << 1) - 1


class Ordered(NamedTuple):
    """Candidates of some queries in order of their scores, the best first."""

    candidates: np.ndarray               # (query, candidate) int
    rows: np.ndarray                     # (hit,) the query of each hit, ascending
    positions: np.ndarray                # (hit,) its position in the order
    first: np.ndarray                    # (hit,) first position of a candidate of its score
    last: np.ndarray                     # (hit,) last one
    tied: np.ndarray                     # (query,) whether any of its hits has the score of another candidate

    def take(self, kept: np.ndarray) -> Ordered:
        """Keep the queries of a (query,) mask."""
        hits = kept[self.rows]
        return Ordered(
            candidates=self.candidates[kept], rows=(np.cumsum(kept) - 1)[self.rows[hits]], positions=self.positions[hits],
            first=self.first[hits], last=self.last[hits], tied=self.tied[kept],
        )


class Folds(NamedTuple):
    """Folds of candidates and queries by the number of each: what is left out."""

    of_candidates: np.ndarray            # (candidate,) int
    number: int
    parts: np.ndarray                    # (fold,) the part of each fold: parts are left out as well, for cross-fitting


class RankSums(NamedTuple):
    """Sums of metrics over the queries of one block, for each column: every fold left out, every part left out, nothing."""

    sums: np.ndarray                     # (figure, column)
    counts: np.ndarray                   # (column,) queries that still have a hit
    values: np.ndarray                   # (figure, query) with nothing left out


def order_candidates(scores: np.ndarray, hit_rows: np.ndarray, hit_columns: np.ndarray) -> Ordered:
    """Sort (query, candidate) float32 scores; excluded candidates score EXCLUDED.  `hit_rows`, `hit_columns`: cells of hits."""
    width = scores.shape[1]
    keys = np.negative(scores, dtype=np.float64)
    keys += 0.0                          # -0.0 equals 0.0
    bits = keys.view(np.int64)
    bits |= np.arange(width)
    bits[hit_rows, hit_columns] |= HIT
    keys.sort(axis=1)
    rows, positions = np.divmod(np.flatnonzero((bits & HIT).astype(bool)), width)
    flat, cell = bits.ravel(), rows * width + positions
    own = flat[cell] & ~PAYLOAD
    before, after = (flat[np.clip(cell + step, 0, len(flat) - 1)] & ~PAYLOAD for step in (-1, 1))
    shared = ((before == own) & (positions > 0)) | ((after == own) & (positions < width - 1))
    tied = np.zeros(len(scores), bool)
    tied[rows[shared]] = True
    first = last = positions
    if tied.any():
        first, last = bounds_of_ties(bits[tied] & ~PAYLOAD, tied, rows, positions)
    return Ordered(candidates=bits & INDEX, rows=rows, positions=positions, first=first, last=last, tied=tied)


def bounds_of_ties(
    some: np.ndarray, tied: np.ndarray, rows: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (hit,) first and last positions of each hit's value, from the sorted values of the rows in `tied`."""
    changes, places = some[:, 1:] != some[:, :-1], np.arange(1, some.shape[1])
    begins, ends = np.zeros(some.shape, np.int64), np.full(some.shape, some.shape[1] - 1)
    begins[:, 1:] = np.maximum.accumulate(np.where(changes, places, 0), axis=1)
    ends[:, :-1] = np.minimum.accumulate(np.where(changes, places - 1, some.shape[1] - 1)[:, ::-1], axis=1)[:, ::-1]
    first, last = positions.copy(), positions.copy()
    own = tied[rows]
    at = (np.cumsum(tied) - 1)[rows[own]], positions[own]
    first[own], last[own] = begins[at], ends[at]
    return first, last


def rank_queries(ordered: Ordered, fold_of_queries: np.ndarray, folds: Folds) -> RankSums:
    """Return sums of RANK_FIGURES over queries, each with at least one hit, without each fold and part, and with all.

    A query without a remaining hit does not count where its hits are left out, nor does a query of a fold that is left out.
    """
    if ordered.tied.any() and not ordered.tied.all():                # queries without ties take half the time
        values = np.empty((len(RANK_FIGURES), len(ordered.tied)))
        some = [rank_queries(ordered.take(kept), fold_of_queries[kept], folds) for kept in (ordered.tied, ~ordered.tied)]
        values[:, ordered.tied], values[:, ~ordered.tied] = some[0].values, some[1].values
        return RankSums(some[0].sums + some[1].sums, some[0].counts + some[1].counts, values)
    queries, width = ordered.candidates.shape
    number, parts = folds.number, int(folds.parts.max()) + 1
    rows = ordered.rows
    found = np.bincount(rows, minlength=queries)                                     # (query,)
    most = int(found.max())
    place = np.arange(len(rows)) - (np.cumsum(found) - found)[rows]                  # number of the hit within its query
    fold = folds.of_candidates[ordered.candidates]
    hit_fold = fold[rows, ordered.positions]
    columns = np.arange(number + parts + 1)
    part_matrix = (folds.parts[:, None] == np.arange(parts)).astype(np.float32)

    def counts_up_to(ends: np.ndarray) -> np.ndarray:
        """(query, hit, column) float32: candidates of each column at the positions before each hit's (hit,) end."""
        stops = np.full(len(rows) + queries, width)                                  # of the stretches between ends, row by row
        stops[np.arange(len(rows)) + rows] = ends
        query = np.repeat(np.arange(queries), found + 1)
        stretch = np.arange(len(stops)) - (np.cumsum(found + 1) - found - 1)[query]
        starts = np.where(stretch == 0, 0, np.concatenate([[0], stops[:-1]]))
        cells = np.repeat((query * (most + 1) + stretch) * number, stops - starts)
        cells += fold.ravel()
        table = np.bincount(cells, minlength=queries * (most + 1) * number).reshape(queries, most + 1, number)
        return with_parts(table[:, :most])

    def with_parts(table: np.ndarray) -> np.ndarray:
        running = np.cumsum(table, axis=1, dtype=np.float32)
        joined = np.zeros((*running.shape[:2], len(columns)), np.float32)
        joined[..., :number] = running
        np.matmul(running, part_matrix, out=joined[..., number:-1])
        return joined

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        table = np.full((queries, most), fill, np.float32)
        table[rows, place] = values
        return table[..., None]

    # Hits are counted from the first hit of their score on.
    first_place = np.searchsorted(rows * (width + 1) + ordered.last, rows * (width + 1) + ordered.last) - (
        np.cumsum(found) - found)[rows]
    cells = (rows * most + first_place) * number + hit_fold
    hits = with_parts(np.bincount(cells, minlength=queries * most * number).reshape(queries, most, number))
    remaining = found[:, None] - hits[np.arange(queries), np.maximum(found - 1, 0)]  # (query, column)
    hits = padded(hits_at_least(found, rows, place, first_place), 0) - hits
    ranks = padded(ordered.last + 1, np.inf) - counts_up_to(ordered.last + 1)
    for column in (hit_fold, number + folds.parts[hit_fold]):                        # a hit that is left out itself
        ranks[rows, place, column] = np.inf
        hits[rows, place, column] = 0
    above = padded(ordered.first, np.inf) - counts_up_to(ordered.first) if ordered.tied.any() else None
    figures = figures_of_ranks(hits, ranks, remaining, above)
    counted = remaining > 0
    counted[np.arange(queries), fold_of_queries] = False
    counted[np.arange(queries), number + folds.parts[fold_of_queries]] = False
    sums = np.where(counted, figures, 0).sum(axis=1)
    return RankSums(sums, counted.sum(axis=0).astype(np.float64), figures[..., -1])


def figures_of_ranks(hits: np.ndarray, ranks: np.ndarray, remaining: np.ndarray, above: np.ndarray | None) -> np.ndarray:
    """Return (figure, query, column) RANK_FIGURES.

    `hits` and `ranks`: (query, hit, column) how many hits, and how many candidates, score at least as much as each hit;
    `above`: how many candidates score more, None if no scores are equal; `remaining`: (query, column) hits.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = (hits / ranks).sum(axis=1) / remaining
        if above is not None:
            shares = (remaining[:, None] - above) / (ranks - above)
            r_precision = np.nan_to_num(np.clip(shares, 0, 1)).sum(axis=1) / remaining
            recall = recall_with_ties(hits, ranks, above)
        else:
            r_precision = (ranks <= remaining[:, None]).sum(axis=1) / remaining
            nearest = ranks.min(axis=1)
            recall = [(nearest <= k).astype(np.float32) for k in RECALL_AT]
    return np.stack([*recall, r_precision, precision]).astype(np.float64)


def hits_at_least(found: np.ndarray, rows: np.ndarray, place: np.ndarray, first_place: np.ndarray) -> np.ndarray:
    """Return (hit,) how many hits of its query score at least as much: the number of the last hit of its score, plus one."""
    start = np.cumsum(found) - found
    last = np.zeros(len(rows), np.int64)
    np.maximum.at(last, start[rows] + first_place, place + 1)
    return last[start[rows] + first_place]


def recall_with_ties(hits: np.ndarray, ranks: np.ndarray, above: np.ndarray) -> list[np.ndarray]:
    """Return (query, column) probabilities of a hit among the first k if candidates of equal score come in random order.

    Only the best remaining hits matter: they have one score, which `above` candidates exceed and `tied` ones have.
    """
    best = np.isfinite(ranks).argmax(axis=1)[:, None]
    found, last, over = (np.take_along_axis(table, best, 1)[:, 0] for table in (hits, ranks, above))
    tied = np.where(np.isfinite(last), last - over, 1)
    probabilities = []
    for k in RECALL_AT:
        miss = np.ones_like(tied)
        for drawn in range(k):           # hypergeometric: none of the slots is filled by a hit
            open_slot = (drawn < k - over) & (drawn < tied)
            miss *= np.where(open_slot, np.maximum(tied - found - drawn, 0) / np.maximum(tied - drawn, 1), 1)
        probabilities.append(np.where(np.isfinite(last) & (over < k), 1 - miss, 0))
    return probabilities


def replicates_of_ranks(sums: RankSums, folds: Folds) -> dict[str, Replicates]:
    """Return each of RANK_FIGURES from the sums over all blocks of queries; `sums.values` is not used."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums.sums / sums.counts
    return {name: Replicates(row[-1], row[: folds.number]) for name, row in zip(RANK_FIGURES, means, strict=True)}


def chance_of_ranks(hits: np.ndarray, candidates: np.ndarray) -> dict[str, float]:
    """Return the expectation of RANK_FIGURES in random order, from the (query,) numbers of hits and of candidates."""
    pairs, counts = np.unique(np.stack([hits, candidates]), axis=1, return_counts=True)
    relevant, total = pairs.astype(np.float64)
    precision = np.array([expected_average_precision(r, n) for r, n in pairs.T], np.float64)
    chances = []
    for k in RECALL_AT:
        miss = np.ones(len(counts))
        for drawn in range(k):
            miss *= np.where(drawn < total, np.maximum(total - relevant - drawn, 0) / np.maximum(total - drawn, 1), 1)
        chances.append(1 - miss)
    means = [float(values @ counts / counts.sum()) for values in (*chances, relevant / total, precision)]
    return dict(zip(RANK_FIGURES, means, strict=True))
