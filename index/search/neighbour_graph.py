"""Nearest neighbours of every row among all rows, for maps and duplicates: exact for few rows, by HNSW for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tonelake.index.search.faiss import faiss_module, nearest_batch

EXACT_ROWS = 20_000                      # all pairs take seconds: 0.6 TFLOP at 768 dimensions
BLOCK = 4096                             # queries compared at a time
MANY_ROWS = 300_000                      # above, FEW_LINKS and SMALL_WIDTH: half the time, 2 % fewer true neighbours
LINKS, WIDTH = 32, 64                    # links of the graph, efSearch: recall@15 of 0.98 on clustered vectors
FEW_LINKS, SMALL_WIDTH = 16, 32          # above MANY_ROWS


def neighbour_graph(
    vectors: np.ndarray, k: int, *, exact: bool | None = None, repeatable: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest other rows of each row, by inner product: (row, k) int64 rows and (row, k) float32 products,
    nearest first.  `exact` and `repeatable` are as for `neighbour_search`."""
    rows = len(vectors)
    k = min(k, rows - 1)
    search = neighbour_search(vectors, exact=exact, repeatable=repeatable)
    nearest, products = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
    for start in range(0, rows, BLOCK):
        own = np.arange(start, min(start + BLOCK, rows))
        found, scores = drop_own(*search(vectors[start : start + BLOCK], k + 1), own)
        nearest[start : start + len(found)], products[start : start + len(found)] = found, scores
    return nearest, products


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def neighbour_search(vectors: np.ndarray, *, exact: bool | None = None, repeatable: bool = False) -> Search:
    """Return a search for the k nearest of these rows, by inner product: (queries, k) -> (query, k) rows and products.

    `exact`: compare all pairs; by default up to EXACT_ROWS rows, above by an HNSW graph, in n log n instead of n² time.
    `repeatable`: build the graph on one thread, so that every run gives the same graph.
    """
    rows = len(vectors)
    faiss = faiss_module()
    if faiss is None or exact or (exact is None and rows <= EXACT_ROWS):
        return lambda queries, k: nearest_batch(queries, vectors, k)
    links, width = (LINKS, WIDTH) if rows <= MANY_ROWS else (FEW_LINKS, SMALL_WIDTH)
    graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, links, faiss.METRIC_INNER_PRODUCT)
    graph.train(vectors[:1])             # no-op: half precision has no parameters to train
    with threads(1 if repeatable else faiss.omp_get_max_threads()):
        graph.add(vectors)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, rows)
        graph.hnsw.efSearch = max(width, 2 * (k - 1))
        products, found = graph.search(queries, k)
        short = (found < 0).any(axis=1)
        if short.any():                  # the graph led to fewer than k rows
            found[short], products[short] = nearest_batch(queries[short], vectors, k)
        return found, products

    return search


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit FAISS to `count` threads within the block."""
    faiss = faiss_module()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def drop_own(found: np.ndarray, scores: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop each row itself from its (row, k + 1) neighbours, or the last one if equal rows pushed it out: (row, k)."""
    keep = found != own[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(found), found.shape[1] - 1)
    return found[keep].reshape(shape), scores[keep].reshape(shape)
