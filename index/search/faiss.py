"""Exact nearest neighbours of a batch by FAISS, on a GPU if there is one; by NumPy if FAISS is not installed.

The only module that imports faiss, which is an optional dependency: other modules get it from `faiss_module` or
`require_faiss`.  The NumPy search is kept for installations without FAISS, and as its reference in tests.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tonelake.store import InputError, install_command

NUMPY_QUERIES = 256                      # queries compared at a time
GPU_QUERIES, GPU_NEIGHBOURS = 64, 2048   # smallest batch worth copying the vectors for; FAISS's limit of k on a GPU


def nearest(query: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, scores) of the k rows nearest to one (dim,) query, nearest first; rows of equal score in row order.

    Fewer than k only if there are fewer rows.
    """
    rows, scores = (found[0] for found in nearest_batch(query[None], vectors, k, metric))
    order = np.lexsort((rows, scores if metric == "l2" else -scores))
    return rows[order], scores[order]


def nearest_batch(
    queries: np.ndarray, vectors: np.ndarray, k: int, metric: str = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """Return (query, k) int64 rows of the nearest vectors, nearest first, and their products or, for l2, distances.

    There are no more columns than vectors.  Exact: by FAISS, on a GPU if there is one and the batch is worth the copy; else by
    NumPy.  Raises InputError if a score is not a number, where FAISS would return the row -1.
    """
    k = min(k, len(vectors))
    if not k or not len(queries):
        return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    faiss = faiss_module()
    if faiss is None:
        return nearest_numpy(queries, vectors, k, metric)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    gpu = gpu_resources() if len(queries) >= GPU_QUERIES and k <= GPU_NEIGHBOURS else None
    if gpu is not None:
        scores, rows = faiss.knn_gpu(gpu, queries, vectors, k, metric=kind)
    else:
        scores, rows = faiss.knn(queries, vectors, k, metric=kind)
    check_found(rows)
    return rows.astype(np.int64), np.sqrt(np.maximum(scores, 0)) if metric == "l2" else scores


def check_found(rows: np.ndarray) -> None:
    """Raise InputError if FAISS found no row for a place: a vector holds NaN, or values whose squares overflow."""
    if (rows < 0).any():
        raise InputError(
            "vectors: some hold NaN, infinity or values above 1e15 and cannot be compared. Embed the audio again in float32"
        )


def nearest_numpy(queries: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Do the work of `nearest_batch` with NumPy alone, `NUMPY_QUERIES` queries at a time."""
    parts = []
    for start in range(0, len(queries), NUMPY_QUERIES):
        block = queries[start : start + NUMPY_QUERIES]
        with np.errstate(over="ignore", invalid="ignore"):
            if metric == "l2":
                scores = np.stack([np.linalg.norm(vectors - query, axis=1) for query in block])
            else:
                scores = block @ vectors.T
        if not np.isfinite(scores).all():
            check_found(np.array([-1]))
        order_keys = scores if metric == "l2" else -scores
        rows = np.argpartition(order_keys, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(order_keys, rows, 1), axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, 1)
        parts.append((rows, np.take_along_axis(scores, rows, 1)))
    rows, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, scores


@lru_cache(maxsize=1)
def gpu_resources() -> Any:
    """Return the resources that FAISS needs on a GPU; None without a GPU."""
    faiss = faiss_module()
    if getattr(faiss, "get_num_gpus", lambda: 0)() < 1 or not hasattr(faiss, "StandardGpuResources"):
        return None
    return faiss.StandardGpuResources()


@lru_cache(maxsize=1)
def faiss_module() -> Any:
    """Return the module faiss, or None if neither faiss-cpu nor faiss-gpu is installed."""
    try:
        import faiss

        return faiss
    except ImportError:
        return None


def require_faiss() -> Any:
    """Return the module faiss.  Raises InputError if it is not installed."""
    faiss = faiss_module()
    if faiss is None:
        raise InputError(f"an index: FAISS is not installed; search without it is exact. {install_command(['faiss-cpu'])}")
    return faiss
