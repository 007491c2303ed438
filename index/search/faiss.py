"""TODO(docstring)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tonelake.store import InputError

NUMPY_QUERIES = 256                      # compared at a time
GPU_QUERIES, GPU_NEIGHBOURS = 64, 2048   # a batch that is worth copying the vectors for; most neighbours a GPU finds


def nearest(query: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, scores) of the k nearest rows to one (dim,) query, nearest first, rows of one score in their order."""
    rows, scores = (found[0] for found in nearest_batch(query[None], vectors, k, metric))
    order = np.lexsort((rows, scores if metric == "l2" else -scores))
    return rows[order], scores[order]


def nearest_batch(
    queries: np.ndarray, vectors: np.ndarray, k: int, metric: str = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) int64 rows of the nearest vectors, nearest first, and their products or, for l2, distances.

    Exact: by FAISS, on a GPU where it has one and the batch is worth the copy, else by NumPy.
    """
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
    return rows.astype(np.int64), np.sqrt(np.maximum(scores, 0)) if metric == "l2" else scores


def nearest_numpy(queries: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The same by NumPy alone, some queries at a time."""
    parts = []
    for start in range(0, len(queries), NUMPY_QUERIES):
        block = queries[start : start + NUMPY_QUERIES]
        if metric == "l2":
            scores = np.stack([np.linalg.norm(vectors - query, axis=1) for query in block])
        else:
            scores = block @ vectors.T
        far = scores if metric == "l2" else -scores
        rows = np.argpartition(far, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(far, rows, 1), axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, 1)
        parts.append((rows, np.take_along_axis(scores, rows, 1)))
    rows, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, scores


@lru_cache(maxsize=1)
def gpu_resources() -> Any:
    """What FAISS needs on a GPU; None where it has none."""
    faiss = faiss_module()
    if getattr(faiss, "get_num_gpus", lambda: 0)() < 1 or not hasattr(faiss, "StandardGpuResources"):
        return None
    return faiss.StandardGpuResources()


@lru_cache(maxsize=1)
def faiss_module() -> Any:
    """faiss, or None where neither faiss-cpu nor faiss-gpu is installed."""
    try:
        import faiss

        return faiss
    except ImportError:
        return None


def require_faiss() -> Any:
    """faiss.  Raises InputError where it is not installed."""
    faiss = faiss_module()
    if faiss is None:
        raise InputError("an index needs FAISS: pip install 'tonelake[cpu]' (or tonelake[gpu]); without it search is exact")
    return faiss
