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
CANDIDATES, REDUCED_WIDTH = 2, 48        # found in reduced vectors for each neighbour; efSearch there
CELLS, CELL_COLUMNS, CELL_SAMPLE = 1024, 64, 50_000                  # k-means that rows are ordered by


def neighbour_graph(
    vectors: np.ndarray, k: int, *, exact: bool | None = None, repeatable: bool = False, reduced: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest other rows of each row, by inner product: (row, k) int64 rows and (row, k) float32 products,
    nearest first.  `exact` and `repeatable` are as for `neighbour_search`.

    `reduced`: (row, fewer dim) approximations of the vectors, in which CANDIDATES times k rows are searched; of these, the
    nearest by the vectors themselves are returned.
    """
    rows = len(vectors)
    k = min(k, rows - 1)
    ranked = reduced is not None
    searched, wanted, order, width = vectors, k, np.arange(rows), None
    if reduced is not None:
        vectors = np.ascontiguousarray(vectors, np.float32)
        order = by_locality(reduced) if rows > EXACT_ROWS else order
        searched, wanted = reduced[order], min(CANDIDATES * k, rows - 1)
        width = max(REDUCED_WIDTH, wanted + 1)
        del reduced                      # a gigabyte for a million rows
    search = neighbour_search(searched, exact=exact, repeatable=repeatable, width=width)
    nearest, products = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
    for start in range(0, rows, BLOCK):
        place = np.arange(start, min(start + BLOCK, rows))
        found, scores = drop_own(*search(searched[place], wanted + 1), place)
        own = order[place]
        if ranked:
            found = order[found]
            scores = products_with(vectors[own], vectors, found)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            found, scores = np.take_along_axis(found, best, 1), np.take_along_axis(scores, best, 1)
        nearest[own], products[own] = found, scores
    return nearest, products


def by_locality(reduced: np.ndarray) -> np.ndarray:
    """Return an order of rows in which near rows are close to each other, by k-means in the leading columns of `reduced`.

    A graph whose vectors lie in this order in memory is built in three quarters of the time, and searched three times as fast.
    """
    faiss = faiss_module()
    if faiss is None:
        return np.arange(len(reduced))
    leading = np.ascontiguousarray(reduced[:, :CELL_COLUMNS])
    sample = leading[:: max(len(leading) // CELL_SAMPLE, 1)]
    cells = faiss.Kmeans(leading.shape[1], CELLS, niter=6, seed=0, min_points_per_centroid=1, max_points_per_centroid=100)
    cells.train(sample)
    centres = cells.centroids
    position = np.argsort(np.argsort(centres @ centres[0]))          # cells follow each other by their distance from the first
    _, cell = cells.assign(leading)
    return np.argsort(position[cell], kind="stable")


def products_with(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (query, n) float32 inner products of each query with the vectors of its own (query, n) int64 rows."""
    faiss = faiss_module()
    if faiss is None:
        return np.stack([vectors[own] @ query for query, own in zip(queries, rows, strict=True)])
    queries, vectors, rows = (np.ascontiguousarray(array) for array in (queries, vectors, rows))
    found = np.empty(rows.shape, np.float32)
    pointers = (faiss.swig_ptr(array) for array in (found, queries, vectors, rows))
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], *rows.shape)
    return found


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def neighbour_search(
    vectors: np.ndarray, *, exact: bool | None = None, repeatable: bool = False, width: int | None = None
) -> Search:
    """Return a search for the k nearest of these rows, by inner product: (queries, k) -> (query, k) rows and products.

    `exact`: compare all pairs; by default up to EXACT_ROWS rows, above by an HNSW graph, in n log n instead of n² time.
    `repeatable`: build the graph on one thread, so that every run gives the same graph.
    `width`: efSearch, with LINKS links; by default both depend on the number of rows, and the width on k.
    """
    rows = len(vectors)
    faiss = faiss_module()
    if faiss is None or exact or (exact is None and rows <= EXACT_ROWS):
        return lambda queries, k: nearest_batch(queries, vectors, k)
    few = rows > MANY_ROWS and width is None
    links, least = (FEW_LINKS, SMALL_WIDTH) if few else (LINKS, WIDTH)
    graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, links, faiss.METRIC_INNER_PRODUCT)
    graph.train(vectors[:1])             # no-op: half precision has no parameters to train
    with threads(1 if repeatable else faiss.omp_get_max_threads()):
        graph.add(vectors)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, rows)
        graph.hnsw.efSearch = max(width, k) if width is not None else max(least, 2 * (k - 1))
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
