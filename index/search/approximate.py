"""Approximate neighbours for layers too large to scan: FAISS graphs and inverted lists, tuned on the user's own vectors.

The recall of an approximate index depends on the vectors: one setting may find 99 or 56 of a hundred true neighbours.
Recall is therefore measured: queries are drawn from the layer and held out of the index, their true neighbours are found by
a scan, and the search is widened until it reaches the requested recall@10, counted by score; then the queries are added.

Kinds: `hnsw`, a graph of 32 links over float16 vectors (Malkov and Yashunin 2018), fastest if it fits in memory;
`ivf-rabitq`, inverted lists over 1-bit codes of rotated vectors (RaBitQ: Gao and Long 2024), refined by float16 ones, for
millions; `ivf-pq`, inverted lists over 4-bit product-quantised vectors, refined likewise (André et al. 2015).
All score their results by float16 vectors, the precision of the store: scores are exact to four digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonelake.index.search.faiss import nearest_batch, require_faiss
from tonelake.index.vectors import prepare
from tonelake.store import InputError, memory_bytes

RECALL_AT = 10
QUERIES = 1_000                          # held out for tuning; with 200, sampling noise would double the width
HELD_SHARE = 10                          # a tenth of the rows is held out if that is fewer than QUERIES
CHUNK = 50_000                           # rows converted to float32 at a time
ADD_SHARE = 6                            # a sixth of the machine's memory holds the rows added to a graph in one call
HNSW_ROWS = 1_000_000                    # above, a graph takes too long to build
# Measured by bench.search at 1,000,000 x 768 (asked recall 0.95): ivf-rabitq took 222 s of processor time to build and tune,
# and reached 0.978 at nprobe 2; ivf-pq took 186 s and reached 0.629 at its widest, with 20 candidates a hit.
LARGE_KIND = "ivf-rabitq"
# efConstruction.  At FAISS's default of 40, 95 % recall at efSearch 10 depends on insertion order.
BUILD_WIDTH = 100
TRAIN_ROWS = 200_000
PQ_CODE = 4                              # dimensions per code of 4 bits
FEWEST_ROWS = 1_000                      # fewer are searched exactly, which is faster
# Candidates by code for each hit, re-ranked by their vectors.  At 10,000,000 x 32, whose codes of 32 bits rank coarsely, 20
# find 0.94 however many lists are visited, and 50 find 0.978 in 16 lists.
REFINES = (20, 50, 100, 200)
LEAST_GAIN = 0.002                       # of recall, by a search twice as wide; after less, more candidates are re-ranked


@dataclass(frozen=True)
class Kind:
    """One kind of index."""

    factory: Callable[[int, int], str]   # (rows, dim) -> description for FAISS's index_factory
    width_parameter: str                 # FAISS's name of the parameter that widens a search
    widths: tuple[int, ...]              # tried in this order when tuning


def list_count(rows: int) -> int:
    """Return the number of inverted lists for this many rows."""
    return max(1, min(1 << round(np.log2(4 * np.sqrt(rows))), rows // 40))


def ivf_rabitq(rows: int, dim: int) -> str:
    """Return the index_factory description of `ivf-rabitq`: a random rotation, lists of codes of one bit, and the vectors."""
    return f"RR,IVF{list_count(rows)},RaBitQ,Refine(SQfp16)"


def ivf_pq(rows: int, dim: int) -> str:
    """Return the index_factory description of `ivf-pq` for this many rows and dimensions."""
    codes = max(2, dim // PQ_CODE // 2 * 2)          # fast scan needs an even number of codes that divides dim
    while dim % codes:
        codes -= 2
    return f"IVF{list_count(rows)},PQ{codes}x4fs,Refine(SQfp16)"


WIDTHS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
LIST_WIDTHS = (1, 2, 3, 4, 6, 8, *WIDTHS[1:-1])
KINDS = {
    "hnsw": Kind(lambda rows, dim: "HNSW32,SQfp16", "efSearch", WIDTHS),
    "ivf-rabitq": Kind(ivf_rabitq, "nprobe", LIST_WIDTHS),
    "ivf-pq": Kind(ivf_pq, "nprobe", LIST_WIDTHS),
}


@dataclass(kw_only=True)
class ApproximateIndex:
    """A FAISS index over prepared vectors, with its search width."""

    kind: str
    metric: str
    faiss_index: Any
    width: int                           # value of the kind's `width_parameter`
    recall: float                        # recall@10 measured at this width
    _current_width: int = 0              # that FAISS is set to

    def search(self, queries: np.ndarray, k: int, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (query, k) positions of the nearest, nearest first, -1 for none, and their scores or distances."""
        width = width or self.width
        if self.kind == "hnsw":          # a graph search returns at most `width` results
            width = max(width, k)
        if width != self._current_width:
            require_faiss().ParameterSpace().set_index_parameter(self.faiss_index, KINDS[self.kind].width_parameter, width)
            self._current_width = width
        scores, found = self.faiss_index.search(queries, k)          # makes the queries contiguous if needed
        return found, np.sqrt(np.maximum(scores, 0)) if self.metric == "l2" else scores

    def rerank(self, candidates: int | None) -> None:
        """Re-rank this many candidates for a hit, which FAISS saves with the index; None for a kind that re-ranks none."""
        if candidates is not None:
            require_faiss().ParameterSpace().set_index_parameter(self.faiss_index, "k_factor_rf", candidates)

    def search_one(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (k,) positions and scores for one (dim,) float32 query of any length; for cosine its scores are scaled."""
        found, scores = self.search(query[None], k)
        if self.metric == "cosine":
            scores *= 1.0 / (math.sqrt(query @ query) or 1.0)
        return found[0], scores[0]

    def add(self, vectors: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Append vectors, or some rows of them; their positions follow the existing ones.

        A graph is extended in as few calls as memory allows: FAISS orders the vectors of one call by level, and a graph of
        100,000 vectors added in two calls has 2 % less recall at the same width.  Lists do not depend on the calls.
        """
        at_once = max(memory_bytes() // ADD_SHARE // (4 * vectors.shape[1]), CHUNK) if self.kind == "hnsw" else CHUNK
        for part in prepared_chunks(vectors, self.metric, rows, at_once):
            self.faiss_index.add(part)


def choose_kind(rows: int) -> str:
    """Return the kind of index for this number of rows."""
    return "hnsw" if rows <= HNSW_ROWS else LARGE_KIND


def build(
    vectors: np.ndarray, metric: str, *, kind: str = "auto", recall: float = 0.95, seed: int = 0
) -> tuple[ApproximateIndex, np.ndarray]:
    """Index (row, dim) vectors so that a search reaches `recall`@10; return the index and the (position,) row at each position.

    If no search reaches `recall`, the one that finds the most is used and its recall recorded.
    Raises InputError if FAISS is not installed, or if there are too few rows to index.
    """
    faiss = require_faiss()
    rows, dim = vectors.shape
    if rows < FEWEST_ROWS:
        raise InputError(f"{rows} vectors are too few for an index. They are searched exactly, which is faster")
    name = choose_kind(rows) if kind == "auto" else kind
    if name not in KINDS:
        raise InputError(f"no kind of index {kind!r}: choose auto, {', '.join(KINDS)}")
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    factory = KINDS[name].factory(rows, dim)
    faiss_index = faiss.index_factory(dim, factory, measure)
    rng = np.random.default_rng(seed)
    if name == "hnsw":
        faiss_index.hnsw.efConstruction = BUILD_WIDTH
    if not faiss_index.is_trained:
        sample = np.sort(rng.choice(rows, min(rows, TRAIN_ROWS), replace=False))
        faiss_index.train(prepare(vectors[sample], metric))
    index = ApproximateIndex(kind=name, metric=metric, faiss_index=faiss_index, width=KINDS[name].widths[0], recall=0.0)
    # Tune on held-out queries: an indexed vector finds its neighbours more easily (95 % where a held-out one finds 93 %).
    held = np.sort(rng.choice(rows, min(QUERIES, rows // HELD_SHARE), replace=False))
    others = np.delete(np.arange(rows), held)
    index.add(vectors, others)
    queries = prepare(vectors[held], metric)
    true = others[true_neighbours(queries, vectors, RECALL_AT, metric, others)]
    refines = REFINES if "Refine" in factory else (None,)
    tune(index, queries, lambda found: recall_of(found, true, queries, vectors, metric), others, recall, refines)
    index.add(vectors, held)
    return index, np.concatenate([others, held])


def tune(
    index: ApproximateIndex, queries: np.ndarray, measure: Callable[[np.ndarray], float], rows: np.ndarray, recall: float,
    refines: Sequence[int | None],
) -> None:
    """Widen the search until `measure`, given the (query, k) rows found, reaches `recall`; `rows`: (position,) of the index.

    Where widening finds no more, the codes hide the rest, and more candidates are re-ranked: the next of `refines`; None for an
    index that re-ranks none.  If nothing reaches `recall`, the cheapest search with the highest recall is kept.
    """
    best = (-1.0, refines[0], 0)         # recall, candidates for a hit, width
    for tried in searches(index, queries, measure, rows, refines):
        if tried[0] > best[0]:
            best = tried
        if tried[0] >= recall:
            break
    index.recall, refine, index.width = best
    index.rerank(refine)


def searches(
    index: ApproximateIndex, queries: np.ndarray, measure: Callable[[np.ndarray], float], rows: np.ndarray,
    refines: Sequence[int | None],
) -> Iterator[tuple[float, int | None, int]]:
    """Yield (recall, candidates for a hit, width) of wider and wider searches, for few candidates first.

    Widening is over where a search twice as wide finds hardly more, except for the most candidates.
    """
    for refine in refines:
        index.rerank(refine)
        shares: dict[int, float] = {}    # recall by width
        for width in KINDS[index.kind].widths:
            found = index.search(queries, RECALL_AT, width)[0]
            shares[width] = measure(np.where(found >= 0, rows[found], -1))
            yield shares[width], refine, width
            half = shares.get(width // 2)
            if refine != refines[-1] and half is not None and shares[width] - half < LEAST_GAIN:
                break


def recall_of(found: np.ndarray, true: np.ndarray, queries: np.ndarray, vectors: np.ndarray, metric: str) -> float:
    """Return the share of the (query, k) rows found that are at least as near as the last true one; -1 for none found.

    By score rather than by row: copies of a recording have one score, and it does not matter which of them is found.  `queries`
    are prepared for the metric, `vectors` are as stored.
    """
    sign = -1 if metric == "l2" else 1
    nearness = sign * scores_of(queries, vectors, np.maximum(found, 0), metric)
    last = (sign * scores_of(queries, vectors, true, metric)).min(axis=1, keepdims=True)
    return float(((nearness >= last - 1e-6 * np.abs(last)) & (found >= 0)).mean())


def scores_of(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Return (query, k) scores, or distances for l2, of each prepared query with its (query, k) rows of the vectors."""
    near = np.stack([prepare(vectors[some], metric) for some in rows.T], axis=1)                   # (query, k, dim)
    if metric == "l2":
        return np.linalg.norm(near - queries[:, None], axis=2)
    return np.einsum("qkd,qd->qk", near, queries)


def true_neighbours(
    queries: np.ndarray, vectors: np.ndarray, k: int, metric: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Return (query, k) positions of the true nearest among the vectors, or among some rows of them, by a scan in chunks."""
    scores = np.empty((len(queries), 0), np.float32)
    found = np.empty((len(queries), 0), np.int64)
    start = 0
    for part in prepared_chunks(vectors, metric, rows):
        positions, part_scores = nearest_batch(queries, part, min(k, len(part)), metric)
        scores, found = np.hstack([scores, part_scores]), np.hstack([found, positions + start])
        order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
        start += len(part)
    return found


def prepared_chunks(
    vectors: np.ndarray, metric: str, rows: np.ndarray | None = None, at_once: int | None = None
) -> Iterator[np.ndarray]:
    """Yield vectors, or some rows of them, prepared for the metric in float32, `at_once` (by default CHUNK) at a time."""
    at_once = at_once or CHUNK
    for start in range(0, len(vectors) if rows is None else len(rows), at_once):
        part = slice(start, start + at_once)
        yield prepare(vectors[part if rows is None else rows[part]], metric)

