"""Exact nearest neighbours among the vectors of one layer: by FAISS where it is installed, else by NumPy.

Cosine and inner product give scores, higher is nearer; l2 gives Euclidean distances, lower is nearer.  A layer is read
and normalised once and kept for the queries that follow, for as long as neither clips nor vectors have changed.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from store import InputError, Lake, Space, memory_bytes

if TYPE_CHECKING:
    from index.facets import Facets

METRICS = ("cosine", "ip", "l2")
NUMPY_QUERIES = 256                      # compared at a time
GPU_QUERIES, GPU_NEIGHBOURS = 64, 2048   # a batch that is worth copying the vectors for; most neighbours a GPU finds
KEPT_SHARE = 0.25                        # of the machine's memory; a layer of 100,000 clips × 768 × float32 is 307 MB

_kept: OrderedDict[tuple, FlatLayer] = OrderedDict()
_keeping = threading.RLock()             # again by the same thread: what a facet is learned from is a layer too


@dataclass(frozen=True)
class FlatLayer:
    """One layer of one space, ready to be searched."""

    metric: str
    ids: pl.Series                       # clip ids
    vectors: np.ndarray                  # (clip, dim) float32; of unit length for cosine
    facets: Facets | None = None         # through which clips and queries are seen

    def ready(self, query: np.ndarray) -> np.ndarray:
        """A (dim,) query of the space as the metric compares it."""
        seen = query[None] if self.facets is None else self.facets.apply(query[None])
        return prepare(seen, self.metric)[0]

    def scores(self, query: np.ndarray) -> np.ndarray:
        """(clip,) float32: the cosine or inner product of every clip with a query."""
        return self.vectors @ self.ready(query)

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(rows, scores) of the k nearest, nearest first; `allowed`, a (clip,) bool mask, is kept exactly.

        Fewer than k come back only where fewer are allowed.
        """
        query = self.ready(query)
        rows = None if allowed is None else np.flatnonzero(allowed)
        kept = len(self.ids) if rows is None else len(rows)
        if not kept:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if rows is not None and len(self.ids) - kept > max(1024, k):
            near, scores = nearest(query, self.vectors[rows], min(k, kept), self.metric)
            return rows[near], scores
        # Few are excluded: that many more neighbours hold all of the k wanted, and nothing is copied.
        near, scores = nearest(query, self.vectors, min(k + len(self.ids) - kept, len(self.ids)), self.metric)
        if allowed is not None:
            keep = allowed[near]
            near, scores = near[keep], scores[keep]
        return near[:k], scores[:k]


def load_layer(lake: Lake, space: Space, layer: int, *, metric: str = "cosine", stat: str = "mean") -> FlatLayer:
    """A layer of every embedded clip, from memory where the lake has not changed since it was read."""
    if metric not in METRICS:
        raise InputError(f"no metric {metric!r}: choose one of {', '.join(METRICS)}")

    def read() -> FlatLayer:
        ids, vectors = lake.vectors(space).layer(layer, stat=stat)
        if not len(ids):
            raise InputError(f"no clip is embedded in space {space.name!r} yet: run `tonelake embed --space {space.name}`")
        return FlatLayer(metric, ids, prepare(vectors, metric))

    return keep_layer((*version_of(lake, space), layer, metric, stat), read)


def version_of(lake: Lake, space: Space) -> tuple:
    """What changes whenever clips or vectors do."""
    return (lake.uri, space.fingerprint, lake.vectors(space).table.version, lake.clips.table.version)


def keep_layer(key: tuple, make: Callable[[], FlatLayer]) -> FlatLayer:
    """A layer from memory, or made and kept there, while the layers used least recently go.

    One thread makes a layer at a time: of several that ask for the same one, as viewers of the app do, the others wait.
    """
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        newest = _kept[key] = make()
        while len(_kept) > 1 and sum(layer.vectors.nbytes for layer in _kept.values()) > KEPT_SHARE * memory_bytes():
            _kept.popitem(last=False)
        return newest


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Vectors as the metric compares them: of unit length for cosine (a zero vector stays zero), else as they are."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    return unit(vectors) if metric == "cosine" else vectors


def prepare_one(query: np.ndarray, metric: str) -> np.ndarray:
    """The same for one (dim,) query, as (1, dim), in a few microseconds."""
    query = np.asarray(query, np.float32)
    if metric == "cosine":
        query = query / (math.sqrt(query @ query) or 1.0)
    return query[None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


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
