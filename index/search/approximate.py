"""Approximate neighbours for layers too large to scan: FAISS graphs and inverted lists, tuned on the user's own vectors.

How well an approximate index answers depends on the vectors: the same setting may find 99 or 56 of a hundred true
neighbours.  So nothing is assumed: queries are drawn from the layer and held out of the index, their true neighbours found by
a scan, and the search made wider until it finds the asked share of them (recall@10); then they are added.

Kinds: `hnsw`, a graph of 32 links over float16 vectors (Malkov and Yashunin 2018), fastest where it fits the memory;
`ivf-pq`, inverted lists over 4-bit product-quantised vectors, refined by float16 ones (André et al. 2015), for millions.
Either scores what it returns by float16 vectors, which is what the store holds: scores are exact to four digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonelake.index.search.faiss import nearest_batch, require_faiss
from tonelake.index.vectors import prepare
from tonelake.store import InputError, memory_bytes

RECALL_AT = 10
QUERIES = 1_000                          # held out to tune by: with 200, chance would widen the search twofold
HELD_SHARE = 10                          # one part in so many, of few rows
CHUNK = 50_000                           # rows in float32 at once
ADD_SHARE = 6                            # one part in so many of the machine's memory holds those that are added at once
HNSW_ROWS = 1_000_000                    # above, a graph takes too long to build
BUILD_WIDTH = 100                        # of a graph: with FAISS's 40 it takes luck in the rows' order to find 95 % at width 10
TRAIN_ROWS = 200_000
PQ_CODE = 4                              # dimensions a code of 4 bits stands for
REFINED = 20                             # times k, candidates by their codes that are then compared by their vectors


@dataclass(frozen=True)
class Kind:
    """One way of indexing."""

    factory: Callable[[int, int], str]   # of rows and dim, as FAISS's index_factory takes it
    dial: str                            # what makes a search wider
    steps: tuple[int, ...]


def ivf_pq(rows: int, dim: int) -> str:
    lists = max(1, min(1 << round(np.log2(4 * np.sqrt(rows))), rows // 40))
    codes = max(2, dim // PQ_CODE // 2 * 2)          # fast scan wants an even number of codes that divide the vector
    while dim % codes:
        codes -= 2
    return f"IVF{lists},PQ{codes}x4fs,Refine(SQfp16)"


STEPS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
KINDS = {
    "hnsw": Kind(lambda rows, dim: "HNSW32,SQfp16", "efSearch", STEPS),
    "ivf-pq": Kind(ivf_pq, "nprobe", (1, 2, 3, 4, 6, 8, *STEPS[1:-1])),
}


@dataclass
class Approximate:
    """A FAISS index over vectors as the metric compares them, and how wide it is searched."""

    kind: str
    metric: str
    faiss_index: Any
    width: int                           # of the kind's dial
    recall: float                        # measured at this width
    _set: int = 0                        # the width that FAISS is set to

    def search(self, queries: np.ndarray, k: int, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(query, k) positions of the nearest, nearest first, -1 where there are none; and their scores or distances."""
        width = width or self.width
        if self.kind == "hnsw":          # a graph returns at most as many as it looks at
            width = max(width, k)
        if width != self._set:
            require_faiss().ParameterSpace().set_index_parameter(self.faiss_index, KINDS[self.kind].dial, width)
            self._set = width
        scores, found = self.faiss_index.search(queries, k)          # which makes them contiguous where they are not
        return found, np.sqrt(np.maximum(scores, 0)) if self.metric == "l2" else scores

    def search_one(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(k,) positions and scores for one (dim,) float32 query of any length: for cosine the scores are scaled, not it."""
        found, scores = self.search(query[None], k)
        if self.metric == "cosine":
            scores *= 1.0 / (math.sqrt(query @ query) or 1.0)
        return found[0], scores[0]

    def add(self, vectors: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Append vectors, or some rows of them; their positions follow those there are.

        In as few calls as memory allows: FAISS orders what comes in one call by its level, and a graph of 100,000 vectors
        that came in two finds 2 % less at the same width.
        """
        at_once = max(memory_bytes() // ADD_SHARE // (4 * vectors.shape[1]), CHUNK)
        for part in prepared_chunks(vectors, self.metric, rows, at_once):
            self.faiss_index.add(part)


def choose_kind(rows: int) -> str:
    """The kind for so many rows."""
    return "hnsw" if rows <= HNSW_ROWS else "ivf-pq"


def build(
    vectors: np.ndarray, metric: str, *, kind: str = "auto", recall: float = 0.95, seed: int = 0
) -> tuple[Approximate, np.ndarray]:
    """Index (row, dim) vectors so that a search finds `recall` of the true ten nearest; and (position,) which row is where.

    The widest search is taken, and its recall recorded, where even that one does not find so many.
    Raises InputError where FAISS is not installed, or there are too few rows to index.
    """
    faiss = require_faiss()
    rows, dim = vectors.shape
    if rows < 1_000:
        raise InputError(f"{rows} vectors are too few for an index: they are searched exactly, and faster")
    name = choose_kind(rows) if kind == "auto" else kind
    if name not in KINDS:
        raise InputError(f"no kind of index {kind!r}: choose auto, {', '.join(KINDS)}")
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    made = faiss.index_factory(dim, KINDS[name].factory(rows, dim), measure)
    rng = np.random.default_rng(seed)
    if name == "hnsw":
        made.hnsw.efConstruction = BUILD_WIDTH
    if not made.is_trained:
        sample = np.sort(rng.choice(rows, min(rows, TRAIN_ROWS), replace=False))
        made.train(prepare(vectors[sample], metric))
    if name == "ivf-pq":
        faiss.ParameterSpace().set_index_parameter(made, "k_factor_rf", REFINED)          # is kept with the index
    index = Approximate(name, metric, made, KINDS[name].steps[0], 0.0)
    # A vector of the index finds its own neighbours more easily than one that is not in it: 95 % where another finds 93.
    held = np.sort(rng.choice(rows, min(QUERIES, rows // HELD_SHARE), replace=False))
    others = np.delete(np.arange(rows), held)
    index.add(vectors, others)
    queries = prepare(vectors[held], metric)
    tune(index, queries, exact(queries, vectors, RECALL_AT, metric, others), recall)
    index.add(vectors, held)
    return index, np.concatenate([others, held])


def tune(index: Approximate, queries: np.ndarray, true: np.ndarray, recall: float) -> None:
    """Widen the search until it finds the asked share of the true nearest, (query, k) positions."""
    for width in KINDS[index.kind].steps:
        index.width, index.recall = width, overlap(index.search(queries, true.shape[1], width)[0], true)
        if index.recall >= recall:
            return


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """The mean share of the true neighbours that were found; both (query, k)."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))


def exact(queries: np.ndarray, vectors: np.ndarray, k: int, metric: str, rows: np.ndarray | None = None) -> np.ndarray:
    """(query, k) places of the true nearest among the vectors, or among some rows of them; held a part at a time."""
    scores = np.empty((len(queries), 0), np.float32)
    found = np.empty((len(queries), 0), np.int64)
    start = 0
    for part in prepared_chunks(vectors, metric, rows):
        places, near = nearest_batch(queries, part, min(k, len(part)), metric)
        scores, found = np.hstack([scores, near]), np.hstack([found, places + start])
        order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
        start += len(part)
    return found


def prepared_chunks(
    vectors: np.ndarray, metric: str, rows: np.ndarray | None = None, at_once: int | None = None
) -> Iterator[np.ndarray]:
    """Vectors, or some rows of them, as the metric compares them, in float32, so many at a time, by default CHUNK."""
    at_once = at_once or CHUNK
    for start in range(0, len(vectors) if rows is None else len(rows), at_once):
        part = slice(start, start + at_once)
        yield prepare(vectors[part if rows is None else rows[part]], metric)

